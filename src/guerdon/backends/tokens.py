"""Text to token ids and back, with the characters that each token covers."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

import numpy as np

from guerdon.registry import Refused
from guerdon.samples import Prompt


class Tokens:
    """A transformers tokenizer behind the seam's `encode` and `decode`."""

    def __init__(self, tokenizer: Any, ends: Sequence[int] = ()) -> None:
        """ends: ids that end a completion; the first one is written after answers of others."""
        self.tokenizer = tokenizer
        self.ends = np.array(list(dict.fromkeys(ends)), dtype=np.int64)
        self.special = set(tokenizer.all_special_ids) | set(ends)
        self._pieces: dict[int, tuple[bytes, int]] = {}
        self._backend = getattr(tokenizer, "backend_tokenizer", None)  # of fast tokenizers; asked directly, as it is asked often
        kind = type(getattr(self._backend, "decoder", None)).__name__
        self._bytes = byte_table() if kind == "ByteLevel" else None
        self._added = {id for id, token in getattr(tokenizer, "added_tokens_decoder", {}).items()}

    def encode(self, prompt: Prompt) -> np.ndarray:
        """(P,) ids. Messages go through the chat template, ready for the answer; without one their contents are joined by newlines."""
        if not isinstance(prompt, str):
            if getattr(self.tokenizer, "chat_template", None):
                messages = list(prompt)
                text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
                return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)
            prompt = "\n".join(plain(message["content"]) for message in prompt)
        return np.asarray(self.tokenizer(prompt)["input_ids"], dtype=np.int64)

    def encode_answer(self, text: str) -> np.ndarray:
        """(t,) ids of an answer, without the tokens that open a text, and the first of the end tokens behind it."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return np.asarray([*ids, *self.ends[:1].tolist()], dtype=np.int64)

    def encode_turn(self, prompt: Prompt, answer: str) -> tuple[np.ndarray, np.ndarray]:
        """(P,) and (t,) ids of a conversation and its answer as the chat template writes them, all that closes the answer's turn with it.

        A prompt of text is the user's message. Raises Refused without a template.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise Refused("This model's tokenizer has no chat template that could write the answer's turn; read plain text (chat=False).")
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        text = self.tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
        ids = np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)
        before = self.encode(messages)
        short = min(len(before), len(ids) - 1)
        differs = before[:short] != ids[:short]
        cut = max(int(differs.argmax()) if differs.any() else short, 1)
        return ids[:cut], ids[cut:]

    def show(self, ids: np.ndarray) -> str:
        """The text of ids, special tokens included."""
        return self._decode(np.asarray(ids).tolist())

    def decode(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        """The tokenizer's own text without special tokens, and offsets (t, 2), never decreasing.

        A token covers the characters that it holds any byte of, so the tokens of one split character cover it all; a special token
        covers none. One pass over the bytes where those give the tokenizer's text, else a window that slides over the ids.
        """
        ids = np.asarray(ids, dtype=np.int64)
        text = self.text(ids)
        pieces = [self._known(id) for id in ids.tolist()]
        if all(size >= 0 for _, size in pieces):
            ends = np.cumsum([size for _, size in pieces], dtype=np.int64)
            offsets = np.stack([np.concatenate([[0], ends[:-1]]), ends], 1) if len(ids) else np.zeros((0, 2), dtype=np.int64)
            joined = b"".join(piece for piece, _ in pieces).decode()
        else:
            offsets, joined = cover([piece for piece, _ in pieces])
        if joined != text and joined == " " + text:  # sentencepiece drops the first space of a text
            offsets, joined = np.maximum(offsets - 1, 0), text
        offsets = offsets if joined == text else self.slide(ids, text)
        special = np.array([id in self.special for id in ids.tolist()], dtype=bool)
        if special.any():  # one in the middle of a character covers none of it, and nothing behind it begins before it
            ends = np.maximum.accumulate(offsets[:, 1])
            starts = np.maximum.accumulate(np.where(special, ends, offsets[:, 0]))
            offsets = np.stack([np.minimum(starts, ends), ends], 1)
        return text, offsets

    def text(self, ids: Sequence[int] | np.ndarray) -> str:
        return self._decode([id for id in np.asarray(ids).tolist() if id not in self.special])

    def _decode(self, ids: list[int]) -> str:
        if self._backend is not None:
            return self._backend.decode(ids, skip_special_tokens=False)
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""

    def piece(self, id: int) -> bytes:
        """The bytes of a token inside a text; none for a special token."""
        return self._known(id)[0]

    def _known(self, id: int) -> tuple[bytes, int]:
        """The bytes of a token, and how many characters they are; -1 where they are not whole characters."""
        if id not in self._pieces:
            piece = self._piece(id)
            try:
                self._pieces[id] = piece, len(piece.decode())
            except UnicodeDecodeError:
                self._pieces[id] = piece, -1
        return self._pieces[id]

    def _piece(self, id: int) -> bytes:
        if id in self.special:
            return b""
        if self._bytes is not None and id not in self._added:
            token = self.tokenizer.convert_ids_to_tokens(id) or ""
            if all(char in self._bytes for char in token):
                return bytes(self._bytes[char] for char in token)
        # Behind another copy of itself the token keeps the space that some tokenizers drop where a text begins.
        once, twice = self._decode([id]), self._decode([id, id])
        return twice[len(once) :].encode() if twice.startswith(once) else once.encode()

    def slide(self, ids: np.ndarray, text: str) -> np.ndarray:
        """Offsets for any tokenizer: the text grows by what a window of recent ids gains with each one."""
        live = [(t, id) for t, id in enumerate(ids.tolist()) if id not in self.special]
        offsets = np.zeros((len(ids), 2), dtype=np.int64)
        start, window, done = 0, 0, 0  # first id of the window, first id not yet turned into text, characters of text so far
        flat = [id for _, id in live]
        for j, (t, _) in enumerate(live):
            before, after = self._decode(flat[start:window]), self._decode(flat[start : j + 1])
            offsets[t] = done, done
            if len(after) > len(before) and not after.endswith("�"):
                gained = len(after) - len(before)
                for i in range(window, j + 1):
                    offsets[live[i][0], 1] = done + gained
                done += gained
                start, window = window, j + 1
        for i in range(window, len(live)):  # bytes at the end that are no whole character
            offsets[live[i][0], 1] = len(text)
        if live:  # lone bytes may read otherwise in a window than in the whole; what that leaves over is the last token's
            offsets[live[-1][0], 1] = len(text)
        position = 0
        for t, id in enumerate(ids.tolist()):
            if id in self.special:
                offsets[t] = position
            position = offsets[t, 1]
        return np.minimum(offsets, len(text))


def cover(pieces: Sequence[bytes]) -> tuple[np.ndarray, str]:
    """Offsets (t, 2) of byte strings in the text they spell together, and that text; bad bytes are U+FFFD as in any UTF-8 decoder."""
    offsets = np.zeros((len(pieces), 2), dtype=np.int64)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    parts, done = [], 0
    for t, piece in enumerate(pieces):
        offsets[t, 0] = done
        part = decoder.decode(piece)
        parts.append(part)
        done += len(part)
        offsets[t, 1] = done + bool(piece and decoder.getstate()[0])  # the character begun here is covered too
    parts.append(decoder.decode(b"", True))
    text = "".join(parts)
    return np.minimum(np.maximum.accumulate(offsets, axis=0), len(text)), text


def plain(content: Any) -> str:
    """The text of a message's content, a string or a list of parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def byte_table() -> dict[str, int]:
    """Byte-level BPE writes each byte as one printable character: itself where printable, else the next free one from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, free = {chr(byte): byte for byte in printable}, 256
    for byte in range(256):
        if byte not in printable:
            table[chr(free)] = byte
            free += 1
    return table


class Stops:
    """Which completions have just spelt one of the stop texts, however many tokens it is spread over."""

    def __init__(self, tokens: Tokens, texts: Sequence[str], vocabulary: int) -> None:
        self.tokens, self.texts = tokens, [text for text in texts if text]
        # A token has at least one byte, so this many tokens hold the longest text and what stands before it in its first token.
        self.window = max((len(text.encode()) for text in self.texts), default=0) + 4
        self.candidate = np.ones(vocabulary, dtype=bool) if self.texts else np.zeros(vocabulary, dtype=bool)
        last = {text[-1] for text in self.texts}
        if self.texts and not any(char.isspace() for char in last) and all(char.isascii() for char in last):
            # Only a token with a stop's last character can complete it; the others need no decoding.
            ends = {ord(char) for char in last}
            special = {id: tokens.tokenizer.decode([id]).encode() for id in tokens.special}
            for id in range(vocabulary):
                self.candidate[id] = not ends.isdisjoint(special.get(id) or tokens.piece(id))

    def hit(self, ids: np.ndarray) -> bool:
        """ids (t,): True where the last token completed a stop text."""
        if not self.candidate[ids[-1]]:
            return False
        text = self.tokens._decode(ids[-self.window :].tolist())
        return any(stop in text for stop in self.texts)
