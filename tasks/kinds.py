"""What kinds of tasks there are: the data each takes, the instructions its model gets, and the shape of its result.

A result is always a JSON object. `msgspec` checks both sides, so that what a task returns has the documented fields or the
task has failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from core.errors import InvalidRequest
from core.shapes import known

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200_000)]
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
_DEFAULT_WORDS, _CHARACTERS_PER_WORD, _MAX_POINTS = 100, 12, 5
# llama.cpp unrolls a bounded text into as many steps of its grammar, and refuses more than 2,000 (MAX_REPETITION_THRESHOLD).
_LONGEST_IN_A_GRAMMAR = 1_200


class _Data(msgspec.Struct, forbid_unknown_fields=True):
    """Base of what tasks take: a field that nobody reads is a mistake of the caller's, and is named."""


class Nothing(_Data):
    pass


class SemanticAnalysisData(_Data):
    text: _Text


class SemanticAnalysis(msgspec.Struct):
    sentiment: Literal["positive", "neutral", "negative"]
    topics: list[str]
    intent: str
    summary: str


class DataCleaningData(_Data):
    records: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1, max_length=1000)]
    rules: list[str] = []


class DataCleaning(msgspec.Struct):
    records: list[dict[str, Any]]
    changes: list[str]


class CategoryMatchData(_Data):
    text: _Text
    categories: Annotated[list[_Word], msgspec.Meta(min_length=1, max_length=500)]


class CategoryMatch(msgspec.Struct):
    """`category` is one of the caller's. The model is asked for whole percents: servers that hold it to a schema by a grammar, as
    llama.cpp does, can bound whole numbers alone."""

    category: str
    confidence: _Share

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> type[msgspec.Struct]:
        names = tuple(dict.fromkeys(data["categories"]))
        return msgspec.defstruct("CategoryMatch", [("category", Literal[names]), ("confidence_percent", _Percent)])

    @staticmethod
    def read(answer: Mapping[str, Any]) -> dict[str, Any]:
        return {"category": answer["category"], "confidence": answer["confidence_percent"] / 100}


class SummaryData(_Data):
    text: _Text
    max_words: Annotated[int, msgspec.Meta(ge=5, le=5000)] = _DEFAULT_WORDS
    language: str = ""


class Summary(msgspec.Struct):
    """Its length is bounded as the caller asked, with room for long words: a small model that is held to the schema comes to an end."""

    summary: str
    key_points: list[str]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> type[msgspec.Struct]:
        longest = data.get("max_words", _DEFAULT_WORDS) * _CHARACTERS_PER_WORD
        if longest > _LONGEST_IN_A_GRAMMAR:
            return cls
        text = Annotated[str, msgspec.Meta(max_length=longest)]
        points = Annotated[list[text], msgspec.Meta(max_length=_MAX_POINTS)]
        return msgspec.defstruct("Summary", [("summary", text), ("key_points", points)])


class TranslationData(_Data):
    text: _Text
    target_language: _Word
    source_language: str = ""


class Translation(msgspec.Struct):
    translation: str
    source_language: str


class FinancialAnalysisData(_Data):
    text: _Text
    question: str = ""


class FinancialAnalysis(msgspec.Struct):
    findings: list[str]
    risks: list[str]
    figures: dict[str, str]
    summary: str


class CodeGenerationData(_Data):
    specification: _Text
    language: _Word = "Python"


class CodeGeneration(msgspec.Struct):
    language: str
    code: str
    explanation: str


class DataExtractionData(_Data):
    text: _Text
    fields: Annotated[list[_Word], msgspec.Meta(min_length=1, max_length=100)]


class DataExtraction(msgspec.Struct):
    """The caller's fields, each of them. One that the text does not tell is null."""

    fields: dict[str, str | None]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> type[msgspec.Struct]:
        names = {f"field_{number}": name for number, name in enumerate(dict.fromkeys(data["fields"]))}
        fields = msgspec.defstruct("Fields", [(name, str | None) for name in names], rename=names)
        return msgspec.defstruct("DataExtraction", [("fields", fields)])


class Answer(msgspec.Struct):
    """Of a custom task: its prompt is all there is, and so its answer is text."""

    text: str


class Kind(msgspec.Struct, frozen=True):
    """`needs_prompt`: the caller's prompt is the task itself; elsewhere it may add to the instructions."""

    name: str
    instructions: str
    data: type[_Data]
    result: type[msgspec.Struct]
    needs_prompt: bool = False

    def checked(self, prompt: str | Mapping[str, Any], data: Any) -> None:
        """`prompt` is a text, or names a template. Raises InvalidRequest with the field in `param`."""
        if self.needs_prompt and isinstance(prompt, str) and not prompt.strip():
            raise InvalidRequest(f"A task of type {self.name!r} needs a prompt.", param="prompt")
        try:
            msgspec.convert(data, self.data)
        except msgspec.ValidationError as exc:
            raise InvalidRequest(f"data: {exc}.", param="data") from None
        try:
            self.shape(data)
        except ValueError as exc:
            raise InvalidRequest(f"data: {exc}; use plain names, without quotes and backslashes.", param="data") from None

    def shape(self, data: Mapping[str, Any]) -> type[msgspec.Struct]:
        """What the model has to answer: the result, or narrower, where the caller has named what may be in it."""
        made: type[msgspec.Struct] = self.result.of(data) if hasattr(self.result, "of") else self.result
        return made

    def decoder(self, data: Mapping[str, Any]) -> msgspec.json.Decoder[Any] | None:
        """Of what the model has to answer; None = whatever it says is the result."""
        return None if self.result is Answer else msgspec.json.Decoder(self.shape(data))

    def read(self, answer: msgspec.Struct) -> dict[str, Any]:
        """The result that an answer of that shape says."""
        said: dict[str, Any] = msgspec.to_builtins(answer)
        return self.result.read(said) if hasattr(self.result, "read") else said

    def messages(self, prompt: str, data: Mapping[str, Any]) -> list[dict[str, str]]:
        """What the model is asked, after the messages of a template, if there is one. The caller's data travels as one JSON value, apart
        from the instructions."""
        if self.result is Answer:
            return [{"role": "user", "content": prompt}] if prompt else []
        schema = msgspec.json.encode(_schema(self.shape(data))).decode()
        extra = f"\n\nThe caller adds: {prompt}" if prompt.strip() else ""
        system = f"{self.instructions}{extra}\n\nAnswer with one JSON object of this schema and nothing else:\n{schema}"
        return [{"role": "system", "content": system}, {"role": "user", "content": _json(data)}]

    def wishes(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Options of the chat call: vendors that can are held to the result's shape."""
        if self.result is Answer:
            return {}
        return {"response_format": {"type": "json_schema", "json_schema": {"name": self.name, "schema": _schema(self.shape(data))}}}


def _schema(result: type[msgspec.Struct]) -> dict[str, Any]:
    """Without references, which not every vendor follows; objects have their fields and no others."""
    (reference,), components = msgspec.json.schema_components([result])

    def whole(part: Any) -> Any:
        if isinstance(part, list):
            return [whole(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return whole(components[str(part["$ref"]).rsplit("/", 1)[-1]])
        closed = {"additionalProperties": False} if "properties" in part and "additionalProperties" not in part else {}
        return {name: named(value) if name == "properties" else whole(value) for name, value in part.items() if name != "title"} | closed

    def named(fields: dict[str, Any]) -> dict[str, Any]:
        """Whatever they are called."""
        return {name: whole(value) for name, value in fields.items()}

    found: dict[str, Any] = whole(reference)
    return found


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_SHIPPED = (
    Kind(
        "semantic_analysis",
        "Say what it means: how its writer feels, what it is about, what its writer wants, and a summary of one sentence.",
        SemanticAnalysisData,
        SemanticAnalysis,
    ),
    Kind(
        "data_cleaning",
        "Clean the records: trim texts, write dates as YYYY-MM-DD, unify spellings, and follow the rules, if any. Keep every record, "
        "its fields and their order; never make up a value. Say in `changes` what was changed.",
        DataCleaningData,
        DataCleaning,
    ),
    Kind(
        "category_match",
        "Choose the one category of the list that fits the text best, spelled as in the list, and say how sure you are, in percent.",
        CategoryMatchData,
        CategoryMatch,
    ),
    Kind(
        "text_summarization",
        "Summarize the text in at most `max_words` words, in `language`, or else in the text's own, with its key points.",
        SummaryData,
        Summary,
    ),
    Kind(
        "translation",
        "Translate the text into `target_language`, completely and without comments. Name the language it was in.",
        TranslationData,
        Translation,
    ),
    Kind(
        "financial_analysis",
        "Analyse the financial text and answer the question, if there is one: findings, risks, and their figures, as written.",
        FinancialAnalysisData,
        FinancialAnalysis,
    ),
    Kind(
        "code_generation",
        "Write code in `language` that does what the specification says, complete and ready to run, and explain it in short.",
        CodeGenerationData,
        CodeGeneration,
    ),
    Kind(
        "data_extraction",
        "Find the value of each of `fields` in the text, as written there; null where the text does not say.",
        DataExtractionData,
        DataExtraction,
    ),
    Kind("custom", "", Nothing, Answer, needs_prompt=True),
)
KINDS = {kind.name: kind for kind in _SHIPPED}
known(*(shape for kind in KINDS.values() for shape in (kind.data, kind.result)))
