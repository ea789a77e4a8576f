"""The kernel's walls around a process, by ctypes: namespaces, a root of its own, Landlock, seccomp, capabilities, limits."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Sequence

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# Numbers of system calls on x86_64 and on aarch64; None where that machine has no such call.
DEADLY = {  # no program that solves a task calls these: the process is killed at once
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "userfaultfd": (323, 282), "swapon": (167, 224), "swapoff": (168, 225),
    "reboot": (169, 142), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "open_by_handle_at": (304, 265),
    "lookup_dcookie": (212, 18), "vhangup": (153, 58), "clock_settime": (227, 112), "settimeofday": (164, 170),
}  # fmt: skip
FORBIDDEN = {  # an honest program may try these: it is told no
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "sync": (162, 81), "syncfs": (306, 267), "fanotify_init": (300, 262),
    "mlock": (149, 228), "mlockall": (151, 230), "mlock2": (325, 284), "name_to_handle_at": (303, 264), "personality": (135, 92),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "syslog": (103, 116), "sethostname": (170, 161), "setdomainname": (171, 162),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "migrate_pages": (256, 238), "move_pages": (279, 239),
}  # fmt: skip
_OTHER = {  # looked at more closely, or called here
    "clone": (56, 220), "clone3": (435, 435), "socket": (41, 198), "seccomp": (317, 277), "capset": (126, 91),
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
}  # fmt: skip
_CALLS = {**DEADLY, **FORBIDDEN, **_OTHER}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_COLUMN, _ARCH = _MACHINES.get(platform.machine(), (-1, 0))
NEWEST = 461  # the last call whose meaning is known here; what comes after it does not exist inside

NEW_NS, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEW_USER, NEW_PID, NEW_NET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 8, 4096, 16384, 1 << 18, 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, AT_FDCWD, AT_RECURSIVE = 1, 2, 4, -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38


class Wall(OSError):
    """A wall that this kernel, or whoever set up this machine, does not let us build."""


def number(name: str) -> int:
    """Of a system call on this machine; -1 where it has none, or where the machine is of another kind."""
    found = _CALLS[name][_COLUMN] if _COLUMN >= 0 else None
    return -1 if found is None else found


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise Wall(code, f"{what}: {os.strerror(code)}")
    return result


def _syscall(name: str, *args: object) -> int:
    if number(name) < 0:
        raise Wall(38, f"{name}: not known on {platform.machine()}")
    return _checked(libc.syscall(ctypes.c_long(number(name)), *args), name)


def unshare() -> None:
    """New user, mount, pid, network, ipc, uts and cgroup namespaces; the pid namespace begins with the next fork."""
    flags = NEW_USER | NEW_NS | NEW_PID | NEW_NET | NEW_IPC | NEW_UTS | NEW_CGROUP
    _checked(libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    given = options.encode() or None
    _checked(libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), given), f"mount {kind} {target}")


def _read_only(path: str, extra: int, recursive: bool) -> None:
    attributes = struct.pack("=QQQQ", ATTR_RDONLY | ATTR_NOSUID | extra, 0, 0, 0)
    at, flags = ctypes.c_int(AT_FDCWD), ctypes.c_uint(AT_RECURSIVE if recursive else 0)
    _syscall("mount_setattr", at, path.encode(), flags, attributes, ctypes.c_size_t(len(attributes)))


def own_root(base: str, readable: Sequence[Sequence[str]], devices: Sequence[str], scratch_mb: int) -> None:
    """Move to a root that holds, read-only, the folders `readable` (path, path inside) and the devices, and an empty /tmp; nothing else of
    the machine."""
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "size=256k,mode=755")
    for path, name in readable:
        inside = base + name
        if os.path.islink(path):
            os.makedirs(os.path.dirname(inside), exist_ok=True)
            os.symlink(os.readlink(path), inside)
            continue
        os.makedirs(inside, exist_ok=True)
        mount(path, inside, "none", MS_BIND | MS_REC)
        _read_only(inside, ATTR_NODEV, True)
    for path in devices:
        inside = base + path
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        open(inside, "x").close()
        mount(path, inside, "none", MS_BIND)
    os.mkdir(base + "/tmp")
    os.chdir(base)
    _syscall("pivot_root", b".", b".")
    _checked(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    fresh_scratch(scratch_mb)
    _read_only("/", 0, False)


def fresh_scratch(scratch_mb: int, mounted: bool = False) -> None:
    """An empty /tmp, in memory."""
    if mounted:
        _checked(libc.umount2(b"/tmp", MNT_DETACH), "umount /tmp")
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"size={scratch_mb}m,nr_inodes=1024,mode=1777")


def prctl(option: int, value: int) -> None:
    _checked(libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)), f"prctl {option}")


# --- Landlock ----------------------------------------------------------------------------------------------------------------------

_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # rights over files that each version knows; from version 5 on 16
_WRITE, _READ, _LIST = 1 << 1, 1 << 2, 1 << 3
_SCRATCH = _WRITE | _READ | _LIST | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 13 | 1 << 14  # remove, make folders and files, move, truncate


def landlock_version() -> int:
    """0 where the kernel has none."""
    found = libc.syscall(ctypes.c_long(number("landlock_create_ruleset")), None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(0, found)


def landlock_rules(readable: Sequence[str], devices: Sequence[str], scratch: str) -> int | None:
    """A file descriptor of the rules: read `readable`, write `scratch`, nothing else; no TCP, no signals or sockets to the outside.
    None where the kernel has no Landlock."""
    version = landlock_version()
    if not version:
        return None
    known = (1 << _FS_BITS.get(version, 16)) - 1
    attributes = struct.pack("=QQQ", known, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _syscall("landlock_create_ruleset", attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    places = [(path, _READ | _LIST) for path in readable] + [(path, _READ | _WRITE) for path in devices] + [(scratch, _SCRATCH)]
    for path, rights in places:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights & known, folder)
        _syscall("landlock_add_rule", ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint(0))
        os.close(folder)
    return rules


def landlock_enter(rules: int) -> None:
    _syscall("landlock_restrict_self", ctypes.c_int(rules), ctypes.c_uint(0))


# --- seccomp -----------------------------------------------------------------------------------------------------------------------

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, EACCES, ENOSYS = 1, 13, 38
CLONE_THREAD, AF_UNIX = 0x10000, 1


Steps = list[tuple[int, int, int, int]]


_WORKERS = ("mount", "umount2", "fork", "vfork", "execve", "execveat")


class Filter:
    """Which system calls are let through, as a classic BPF program. `install` cannot be undone, and holds for all that the process forks.

    To install a long one takes a tenth of a millisecond, so there are two: that of the worker forbids what a worker never calls, and is
    inherited by its runs; that of a run (`of_run`) forbids the rest: new processes, mounts, and sockets but for AF_UNIX.
    """

    def __init__(self, of_run: bool) -> None:
        self.code: Steps = []
        if _COLUMN < 0:
            return
        answers = {name: KILL for name in DEADLY} | {name: ERRNO | EPERM for name in FORBIDDEN}
        answers["clone3"] = ERRNO | ENOSYS  # its flags lie in memory, where no filter can look; libc then uses clone
        chosen = {name: answer for name, answer in answers.items() if of_run == (name in _WORKERS)}
        blocks: dict[int, Steps] = {number(name): [(_RETURN, 0, 0, answer)] for name, answer in chosen.items()}
        special = (("clone", _ANY_BIT, CLONE_THREAD, EPERM), ("socket", _EQUAL, AF_UNIX, EACCES)) if of_run else ()
        for name, operator, operand, no in special:
            first_argument = (_LOAD, 0, 0, 16)
            blocks[number(name)] = [first_argument, (operator, 0, 1, operand), (_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, ERRNO | no)]
        blocks.pop(-1, None)
        self.code = [
            (_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCH), (_RETURN, 0, 0, KILL),  # another machine's table of calls
            (_LOAD, 0, 0, 0), (_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, KILL),  # x32, another table of the same machine
            (_AT_LEAST, 0, 1, NEWEST + 1), (_RETURN, 0, 0, ERRNO | ENOSYS), *_search(sorted(blocks.items())),
        ]  # fmt: skip
        packed = b"".join(struct.pack("=HBBI", *step) for step in self.code)
        self._kept = ctypes.create_string_buffer(packed, len(packed))
        self._program = struct.pack("HxxxxxxQ", len(self.code), ctypes.addressof(self._kept))

    def install(self) -> None:
        """On this thread, of which there is one. Without the slow-down that kernels add against Spectre."""
        _syscall("seccomp", ctypes.c_uint(1), ctypes.c_uint(4), self._program)


def _search(blocks: list[tuple[int, Steps]]) -> Steps:
    """Run the block of the loaded number, else allow. By halves: the kernel walks through this for each call there is at each install."""
    if len(blocks) <= 4:
        return [step for call, block in blocks for step in ((_EQUAL, 0, len(block), call), *block)] + [(_RETURN, 0, 0, ALLOW)]
    half = len(blocks) // 2
    low, high = _search(blocks[:half]), _search(blocks[half:])
    return [(_AT_LEAST, len(low), 0, blocks[half][0]), *low, *high]


# --- privileges and limits -----------------------------------------------------------------------------------------------------------

NOBODY = 65534


def drop_capabilities() -> None:
    _syscall("capset", struct.pack("=Ii", 0x20080522, 0), bytes(24))


def nobody() -> None:
    """The user and group 65534 of this namespace, which own nothing."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def limits_of_all(scratch_mb: int) -> None:
    """Those that are the same for every run, and that the process which forks the runs can bear itself."""
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_FSIZE, scratch_mb * 2**20)
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_STACK, 64 * 2**20)
    if sys.platform == "linux":
        limit(resource.RLIMIT_MSGQUEUE, 0)
        limit(resource.RLIMIT_SIGPENDING, 64)
    limit(resource.RLIMIT_MEMLOCK, 0)


def limits_of_run(seconds: float, memory_mb: int) -> None:
    limit(resource.RLIMIT_AS, memory_mb * 2**20)
    limit(resource.RLIMIT_CPU, int(seconds) + 2)
    limit(resource.RLIMIT_NPROC, 32)
