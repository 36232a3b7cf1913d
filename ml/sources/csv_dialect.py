"""Finds out how a text file writes a table: its encoding, its delimiter and where the table begins."""

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ml.data_params import CsvParams

SAMPLE = 200_000
"""Characters of the file from which the delimiter is inferred."""
DELIMITERS = (",", ";", "\t", "|")
BLANKS = r"\s+"
"""pandas' name for runs of blanks as the delimiter."""
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", BLANKS: "runs of blanks"}
_NUMBER = re.compile(r"[+-]?\d*[.,]?\d+(?:[eE][+-]?\d+)?")
_WORD_BYTES = re.compile(
    r"(?<=[^\W\d_])[\xa1-\xa9\xab\xac\xae-\xb6\xb8\xb9\xbb-\xbf\xd7](?=[^\W\d_])|[\xa3\xa5\xbc-\xbe](?=[^\W\d_])"
)
"""A sign between two letters or before one, which no Western word has: the encoding isn't Windows-1252."""
_FOREIGN_RUN = re.compile(r"[\x80-\xff]{4}")
"""Four letters in a row that aren't ASCII, which no Western word has, but each Cyrillic or Greek one."""


class DialectError(ValueError):
    """The text can't be read as a table without a word from its owner; the message names the param."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the file writes its table."""

    encoding: str
    delimiter: str
    skip: int
    """Lines before the header."""
    width: int
    """Fields in a row."""
    header: int
    """Fields in the header; a field less than in a row when rows begin with their names or end with a delimiter."""
    assumed: tuple[str, ...] = field(default=())
    """What was inferred and could be otherwise, a sentence each."""


def find_dialect(data: bytes, uri: str, params: CsvParams) -> Dialect:
    """The file's dialect: what params declare, and what is unambiguous of the rest.

    Raises DialectError when the content can't settle it.
    """
    assumed: list[str] = []
    encoding = params.encoding or _encoding(data, assumed)
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        raise DialectError(f"its text is not {encoding} ({error}): set data.csv.encoding in params.yaml") from None
    sample = text[:SAMPLE]
    if len(text) > SAMPLE:
        sample = sample[: sample.rfind("\n") + 1] or sample
    if re.match(r"\s*<(!doctype|html|\?xml)", sample[:200], re.IGNORECASE):
        raise DialectError("it is a web page or XML, not a table: check the address")
    lines = io.StringIO(sample, newline="").readlines()
    comments = _comments(lines, params)
    skip = comments if params.skiprows is None else params.skiprows
    delimiter, records = _delimiter("".join(lines[skip:]), uri, params, assumed)
    if not records:
        return Dialect(encoding, delimiter, skip, 0, 0, tuple(assumed))
    width = _width(records)[0]
    header = len(records[0][1])
    if params.skiprows is None and params.names is None:
        if comments and _fields(lines[comments - 1], delimiter, width):
            skip -= 1  # the last comment has a name for each column: it is the header
            header = width
        else:
            before, header = _preamble(records, width)
            skip += before
    if skip and params.skiprows is None:
        shown = lines[0].strip()
        assumed.append(
            f"lines before the header that are left out: {skip}, the first is {shown[:60]!r} (data.csv.skiprows)"
        )
    return Dialect(encoding, delimiter, skip, width, header, tuple(assumed))


def _encoding(data: bytes, assumed: list[str]) -> str:
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return name
    start = data[:4096]
    if b"\0" in start:
        odd, even = start[1::2].count(0), start[::2].count(0)
        if max(odd, even) < 0.3 * len(start) / 2 or min(odd, even) > 0.1 * max(odd, even):
            raise DialectError("it is not text: it contains zero bytes; set data.format in params.yaml")
        return "utf-16-le" if odd > even else "utf-16-be"
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    unknown = DialectError(
        "its text is not UTF-8, and no other encoding is plain from its content: set data.csv.encoding in params.yaml, "
        "such as cp1251, shift_jis or gb18030"
    )
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise unknown from None
    if _FOREIGN_RUN.search(data.decode("latin-1")) or _WORD_BYTES.search(text):
        raise unknown
    example = re.search(r"\w*[^\x00-\x7f]\w*", text)
    assumed.append(f"the encoding is Windows-1252, as in {example[0] if example else ''!r} (data.csv.encoding)")
    return "cp1252"


def _comments(lines: list[str], params: CsvParams) -> int:
    """Leading lines that begin with the comment sign, or are blank before such a line."""
    sign = params.comment or "#"
    count = 0
    for number, line in enumerate(lines):
        if line.startswith(sign):
            count = number + 1
        elif line.strip():
            break
    return count


def _delimiter(text: str, uri: str, params: CsvParams, assumed: list[str]) -> tuple[str, list[tuple[int, list[str]]]]:
    """The delimiter, and the sample's records as (line after which the record ends, fields)."""
    if params.delimiter is not None:
        return params.delimiter, _records(text, params.delimiter)
    found: dict[str, tuple[float, bool, list[tuple[int, list[str]]]]] = {}
    for delimiter in DELIMITERS:
        records = _records(text, delimiter)
        width, share = _width(records)
        if width < 2:
            continue
        header = next(fields for _, fields in records if len(fields) >= min(width, 2))
        names = {name.strip() for name in header}
        sound = len(header) in (width, width - 1) and len(names) == len(header)
        found[delimiter] = (share, sound, records)
    best = [d for d, (share, sound, _) in found.items() if sound and share == max(f[0] for f in found.values() if f[1])]
    if not best and found:
        best = [max(found, key=lambda d: found[d][0])]
    if len(best) > 1 and PurePosixPath(uri).suffix in (".tsv", ".tab"):
        best = [d for d in best if d == "\t"] or best
    if len(best) > 1:
        shown = " and ".join(f"{NAMES[d]} ({d!r})" for d in best)
        raise DialectError(f"the delimiter may be {shown}: set data.csv.delimiter in params.yaml")
    if best:
        if best[0] != "," and not (best[0] == "\t" and PurePosixPath(uri).suffix in (".tsv", ".tab")):
            assumed.append(f"the delimiter is the {NAMES[best[0]]} (data.csv.delimiter)")
        return best[0], found[best[0]][2]
    blank = _records(text, BLANKS)
    sizes = {len(fields) for _, fields in blank[1:]} or {0}
    # R's write.table names no column for the rows' names.
    if len(sizes) == 1 and (width := min(sizes)) > 1 and len(blank[0][1]) in (width, width - (width > 2)):
        assumed.append("columns are separated by runs of blanks (data.csv.delimiter)")
        return BLANKS, blank
    return ",", _records(text, ",")


def _width(records: list[tuple[int, list[str]]]) -> tuple[int, float]:
    """The most frequent number of fields, and the share of the records that have it."""
    counts = Counter(len(fields) for _, fields in records)
    width = max(counts, key=lambda fields: (counts[fields], fields), default=0)
    return width, counts[width] / max(len(records), 1)


def _records(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    if delimiter == BLANKS:
        split = [(n, re.findall(r'"[^"]*"|\S+', line)) for n, line in enumerate(text.splitlines(), start=1)]
        return [(number, fields) for number, fields in split if fields]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    records = []
    try:
        for fields in reader:
            if any(value.strip() for value in fields) or len(fields) > 1:
                records.append((reader.line_num, fields))  # noqa: PERF401 - the reader may fail on the way
    except csv.Error:  # a field beyond the csv module's limit: pandas reads the file all the same
        pass
    return records


def _fields(line: str, delimiter: str, width: int) -> bool:
    fields = re.split(BLANKS, line.strip()) if delimiter == BLANKS else line.split(delimiter)
    return width > 1 and len(fields) == width and not any(_NUMBER.fullmatch(name.strip()) for name in fields)


def _preamble(records: list[tuple[int, list[str]]], width: int) -> tuple[int, int]:
    """Lines before the header that have fewer fields than the table, such as a title; and the fields of the header.

    Raises DialectError when the line after them can't be a header.
    """
    place = next(place for place, (_, fields) in enumerate(records) if len(fields) >= width - (width > 2))
    if place == 0:
        return 0, len(records[0][1])
    header = [name.strip() for name in records[place][1]]
    if len(set(header)) < len(header) or any(_NUMBER.fullmatch(name) for name in header):
        raise DialectError(
            f"its first lines have fewer fields than the table ({len(records[0][1])} instead of {width}), and no "
            "header is plain: set data.csv.skiprows, and data.csv.names if there is no header, in params.yaml"
        )
    return records[place - 1][0], len(header)
