"""`import_providers` and `import_prices`: what they take, what they say, and that a dry run changes nothing."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from models_registry.models import LLMModel, Price
from models_registry.services import set_price
from providers.models import Provider, ProviderKey
from providers.services import create_provider

KEY = "sk-vendor-key-0123456789abcdef"
OTHER = "sk-vendor-key-fedcba9876543210"
pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def written(folder: Path, content: Any, name: str = "provider.json") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


# Providers ----------------------------------------------------------------------------------------------------------

FILE: dict[str, Any] = {
    "provider": {
        "openai-main": {
            "api_keys": [KEY, OTHER],
            "base_url": "https://api.openai.com/v1",
            "model": "gpt-4o",
            "max_retries": 3,
            "retry_delay": 1.5,
            "rate_limit_capacity": 20,
            "rate_limit_refill_rate": 3,
        },
        "kimi": {"api_keys": [KEY], "model": "kimi-k2.5"},
        "desk": {"base_url": "http://10.0.0.7:8000/v1", "model": "text-embedding-small"},
    }
}


def test_the_contracts_file_is_taken(tmp_path: Path) -> None:
    said = run("import_providers", written(tmp_path, FILE))
    assert list(Provider.objects.values_list("name", "provider_type", "base_url", "rate_capacity", "rate_refill_per_s")) == [
        ("desk", "openai_compatible", "http://10.0.0.7:8000/v1", 0, 0),
        ("kimi", "moonshot", "", 0, 0),
        ("openai-main", "openai", "https://api.openai.com/v1", 20, 3),
    ]
    keys = ProviderKey.objects.filter(provider__name="openai-main").order_by("created_at")
    assert [key.open().reveal() for key in keys] == [KEY, OTHER]
    assert set(LLMModel.objects.values_list("provider__name", "alias", "model_type")) == {
        ("openai-main", "gpt-4o", "chat"),
        ("kimi", "kimi-k2.5", "chat"),
        ("desk", "text-embedding-small", "embedding"),
    }
    assert "openai-main: created (type openai, 2 keys, model gpt-4o); ignored" in said
    assert "max_retries, retry_delay" in said
    assert "3 created, 0 updated, 0 unchanged." in said
    assert KEY not in said


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    run("import_providers", path)
    before = [*Provider.objects.values(), *ProviderKey.objects.values(), *LLMModel.objects.values()]
    assert "0 created, 0 updated, 3 unchanged." in run("import_providers", path)
    assert [*Provider.objects.values(), *ProviderKey.objects.values(), *LLMModel.objects.values()] == before


def test_what_differs_is_updated_and_said_by_name(tmp_path: Path) -> None:
    run("import_providers", written(tmp_path, FILE))
    changed = {**FILE["provider"]["openai-main"], "api_keys": [OTHER], "rate_limit_capacity": 9, "model": "gpt-5"}
    said = run("import_providers", written(tmp_path, {"provider": {"openai-main": changed}}))
    assert "openai-main: updated (rate_capacity, api_keys, model gpt-5)" in said
    provider = Provider.objects.get(name="openai-main")
    assert provider.rate_capacity == 9
    assert [key.open().reveal() for key in provider.keys.all()] == [OTHER]
    assert set(provider.models.values_list("alias", flat=True)) == {"gpt-4o", "gpt-5"}


def test_a_guessed_type_does_not_overrule_the_row(tmp_path: Path) -> None:
    create_provider(name="openai-main", provider_type="vllm")
    assert "unchanged" in run("import_providers", written(tmp_path, {"provider": {"openai-main": {}}}))
    run("import_providers", written(tmp_path, {"provider": {"openai-main": {"type": "ollama", "base_url": "http://127.0.0.1:8000/v1"}}}))
    assert Provider.objects.get().provider_type == "ollama"


def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, FILE)
    dry = run("import_providers", path, "--dry-run")
    assert not Provider.objects.exists()
    assert not LLMModel.objects.exists()
    assert dry.replace(" This was a dry run: nothing was changed.", "") == run("import_providers", path)


def test_a_type_may_stand_in_place_of_provider_and_options_are_taken(tmp_path: Path) -> None:
    run("import_providers", written(tmp_path, {"openai": {"main": {"api_key": KEY, "organization": "org-1"}}}))
    assert Provider.objects.values_list("name", "provider_type", "options").get() == ("main", "openai", {"organization": "org-1"})


def test_an_alias_that_is_taken_gets_the_providers_name_in_front(tmp_path: Path) -> None:
    both = {"a": {"type": "vllm", "model": "m"}, "b": {"type": "ollama", "model": "m"}}
    run("import_providers", written(tmp_path, {"provider": both}))
    assert set(LLMModel.objects.values_list("alias", flat=True)) == {"m", "b/m"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"provider": {"nobody": {"api_keys": [KEY]}}}, "nobody: type:"),
        ({"provider": {"openai": {"type": "telepathy"}}}, "openai: type:"),
        ({"provider": {"openai": {"type": ["openai"]}}}, "openai: type:"),
        ({"provider": {"openai": {"api_kyes": [KEY]}}}, "openai: api_kyes: This field is not known."),
        ({"provider": {"openai": {"api_keys": [KEY + " x"]}}}, "openai: api_keys:"),
        ({"provider": {"openai": {"api_keys": [7]}}}, "openai: api_keys:"),
        ({"provider": {"openai": {"rate_limit_capacity": 5}}}, "openai: rate_limit_refill_rate:"),
        ({"provider": {"openai": {"rate_limit_capacity": "many"}}}, "openai: rate_limit_capacity:"),
        ({"provider": {"openai": {"base_url": "ftp://x"}}}, "openai: base_url:"),
        ({"provider": {"openai": {"model": "m" * 201}}}, "openai: "),
        ({"provider": {"openai": KEY}}, "openai: Write an object"),
        ({"providers": {"openai": {}}, "provider": {"openai": {}}}, "given twice: openai"),
        ({"vendors": {}}, "vendors is neither"),
        ([KEY], "not JSON of the form"),
        ("{nonsense", "not JSON of the form"),
    ],
)
def test_what_cannot_be_taken_is_named_and_nothing_is_imported(tmp_path: Path, content: Any, said: str) -> None:
    if isinstance(content, dict) and "provider" in content and "providers" not in content:
        content["provider"]["fine"] = {"type": "echo"}
    with pytest.raises(CommandError) as refused:
        run("import_providers", written(tmp_path, content))
    assert said in str(refused.value)
    assert KEY not in str(refused.value)
    assert not Provider.objects.exists()


def test_another_host_without_keys_is_refused_by_name(tmp_path: Path) -> None:
    run("import_providers", written(tmp_path, FILE))
    with pytest.raises(CommandError, match="openai-main: base_url: The stored keys belong to the old address"):
        run("import_providers", written(tmp_path, {"provider": {"openai-main": {"base_url": "https://evil.example/v1"}}}))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        run("import_providers", str(tmp_path / "gone.json"))


# Prices -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def models() -> dict[str, LLMModel]:
    """A model with a price, one without, and one that no catalogue knows."""
    vendor, own = create_provider(name="vendor", provider_type="openai"), create_provider(name="own", provider_type="echo")
    made = {
        "gpt-4o": LLMModel.objects.create(provider=vendor, model_id="gpt-4o", alias="gpt-4o"),
        "gpt-5": LLMModel.objects.create(provider=vendor, model_id="gpt-5", alias="five"),
        "echo-1": LLMModel.objects.create(provider=own, model_id="echo-1", alias="echo"),
    }
    set_price(made["gpt-4o"], currency="EUR", per_million={"input": "9", "output": "9"}, valid_from=datetime(2026, 1, 1, tzinfo=UTC))
    return made


def lines(said: str) -> dict[str, list[str]]:
    """The table's lines by the model's alias."""
    rows = [row.split() for row in said.splitlines() if row.startswith(("vendor ", "own "))]
    return {row[1]: row for row in rows}


def test_the_catalogue_prices_what_has_none(models: dict[str, LLMModel]) -> None:
    said = run("import_prices")
    assert "prices of 20" in said
    assert lines(said)["five"][:8] == ["vendor", "five", "new", "USD", "1.25", "0.125", "1.25", "10.0"]
    assert lines(said)["echo"][2] == "unknown"
    assert lines(said)["gpt-4o"][2:4] == ["differs", "USD"]
    assert "now 9.0 / 9.0 EUR" in said
    assert "1 differ from the catalogue" in said
    assert Price.objects.filter(model=models["gpt-5"]).get().source.startswith("model-prices")
    assert models["gpt-4o"].prices.get().currency == "EUR"
    assert set(lines(run("import_prices", "--provider", "vendor"))) == {"gpt-4o"}
    assert lines(run("import_prices", "--provider", "vendor", "--replace"))["gpt-4o"][2] == "changed"
    assert models["gpt-4o"].prices.get(valid_to=None).currency == "USD"
    assert run("import_prices", "--provider", "vendor", "--replace").endswith("There is nothing to do.\n")


def test_a_dry_run_prices_nothing(models: dict[str, LLMModel]) -> None:
    said = run("import_prices", "--dry-run")
    assert lines(said)["five"][2] == "new"
    assert "nothing was changed" in said
    assert Price.objects.count() == 1


def test_only_one_provider(models: dict[str, LLMModel]) -> None:
    assert set(lines(run("import_prices", "--provider", "own"))) == {"echo"}
    with pytest.raises(CommandError, match="no provider named 'nobody'"):
        run("import_prices", "--provider", "nobody")


ENTRY = {"model": "gpt-4o", "currency": "USD", "per_million": {"input": "2.50", "output": 10, "reasoning": 12.5}, "source": "our contract"}


def test_a_file_ends_the_price_before_and_is_taken_once(models: dict[str, LLMModel], tmp_path: Path) -> None:
    path = written(tmp_path, [ENTRY, {**ENTRY, "model": "five", "valid_from": "2026-03-01T00:00:00Z"}], "prices.json")
    dry = run("import_prices", "--from", path, "--dry-run")
    assert Price.objects.count() == 1
    said = run("import_prices", "--from", path)
    assert dry.replace("This was a dry run: nothing was changed.\n", "") == said
    assert (lines(said)["gpt-4o"][2], lines(said)["five"][2]) == ("changed", "new")
    new, old = models["gpt-4o"].prices.order_by("-valid_from")
    assert (old.input_micros, old.valid_to) == (9_000_000, new.valid_from)
    assert (new.input_micros, new.reasoning_micros, new.source) == (2_500_000, 12_500_000, "our contract")
    again = run("import_prices", "--from", path)
    assert (lines(again)["gpt-4o"][2], lines(again)["five"][2]) == ("unchanged", "unchanged")
    assert Price.objects.count() == 3


def test_a_csv_file_is_taken(models: dict[str, LLMModel], tmp_path: Path) -> None:
    text = "provider,model,currency,input,cached_input,output,source\nvendor,gpt-5,USD,1.25,0.125,10,page\nown,echo,EUR,0,,0,\n"
    run("import_prices", "--from", written(tmp_path, text, "prices.csv"))
    assert Price.objects.get(model=models["gpt-5"]).cached_input_micros == 125_000
    assert Price.objects.get(model=models["echo-1"]).currency == "EUR"


def test_tiers_of_size_come_with_the_catalogues_price() -> None:
    google = create_provider(name="vendor", provider_type="gemini")
    model = LLMModel.objects.create(provider=google, model_id="gemini-2.5-pro", alias="gemini")
    assert "from 200001 tokens of input" in run("import_prices")
    found = model.prices.order_by("min_input_tokens").values_list("min_input_tokens", "input_micros", "output_micros")
    assert list(found) == [(0, 1_250_000, 10_000_000), (200_001, 2_500_000, 15_000_000)]


def test_a_file_may_speak_of_tiers(models: dict[str, LLMModel], tmp_path: Path) -> None:
    text = "model,currency,input,output,service_tier,min_input_tokens\nfive,USD,1,2,,\nfive,USD,3,4,priority,\nfive,USD,5,6,,200001\n"
    path = written(tmp_path, text, "prices.csv")
    run("import_prices", "--from", path)
    found = models["gpt-5"].prices.order_by("input_micros").values_list("service_tier", "min_input_tokens", "input_micros")
    assert list(found) == [("", 0, 1_000_000), ("priority", 0, 3_000_000), ("", 200_001, 5_000_000)]
    run("import_prices", "--from", path)
    assert models["gpt-5"].prices.count() == 3


def test_one_bad_entry_keeps_all_from_being_taken_and_fails_the_command(models: dict[str, LLMModel], tmp_path: Path) -> None:
    create_provider(name="second", provider_type="openai")
    LLMModel.objects.create(provider=Provider.objects.get(name="second"), model_id="gpt-5", alias="gpt-5")
    bad: list[Any] = [
        {**ENTRY, "model": "gpt-99"},
        {**ENTRY, "model": "gpt-5"},
        {**ENTRY, "model": "five", "per_million": {"input": "-1", "output": "1"}},
        {**ENTRY, "model": "five", "valid_from": "soon"},
        {**ENTRY, "model": "five", "currency": "dollars"},
        {**ENTRY, "model": "five", "inputs": "1"},
        {**ENTRY, "valid_from": "2025-01-01T00:00:00Z"},
        {**ENTRY, "model": "five", "service_tier": "fast"},
        {**ENTRY, "model": "five", "min_input_tokens": "-1"},
        "gpt-5",
    ]
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"10 of 11 could not be taken.*nothing was changed"):
        call_command("import_prices", "--from", written(tmp_path, [*bad, {**ENTRY, "model": "echo"}], "prices.json"), stdout=out)
    said = out.getvalue()
    for reason in (
        "no such model",
        "second, vendor",
        "per_million.input",
        "valid_from",
        "currency",
        "inputs",
        "latest price begins",
        "object",
        "entry 3: per_million.input",
        "entry 8: service_tier",
        "entry 9: min_input_tokens",
    ):
        assert reason in said
    assert set(Price.objects.values_list("model__alias", "currency")) == {("gpt-4o", "EUR")}


@pytest.mark.parametrize("content", ["{nonsense", {"model": "gpt-4o"}])
def test_a_file_that_is_no_list_is_refused(models: dict[str, LLMModel], tmp_path: Path, content: Any) -> None:
    with pytest.raises(CommandError):
        run("import_prices", "--from", written(tmp_path, content, "prices.json"))
    with pytest.raises(CommandError, match="cannot be read"):
        run("import_prices", "--from", str(tmp_path / "gone.csv"))
