"""Models, their prices, and bringing the list in line with the vendor's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from core.errors import ProviderUnreachable
from models_registry.models import ExchangeRate, LLMModel, Price
from models_registry.services import set_price
from tests.admin.conftest import World

pytestmark = pytest.mark.usefixtures("standing_world")

LIST = "/admin/models_registry/llmmodel/"
RATES = "/admin/models_registry/exchangerate/"


@pytest.fixture
def vendor_lists(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the vendor answers when it is asked for its models."""
    listed = ["gpt-4o-2024-08-06", "gpt-5"]
    monkeypatch.setattr("models_registry.services.list_vendor_models", lambda provider: list(listed))
    return listed


def _sync(world: World) -> str:
    return reverse("admin:models_registry_llmmodel_sync", args=[world.provider.pk])


def test_the_list_shows_the_price_in_force(root: Client, world: World) -> None:
    assert "2.50 / 10.00 USD" in root.get(LIST).content.decode()
    set_price(world.model, currency="EUR", per_million={"input": "3", "output": "0.000001"})
    page = root.get(LIST).content.decode()
    assert "3.00 / 0.000001 EUR" in page
    assert "2.50 / 10.00 USD" not in page


def test_a_future_price_is_not_yet_the_price(root: Client, world: World) -> None:
    set_price(world.model, currency="USD", per_million={"input": "9", "output": "9"}, valid_from=timezone.now() + timedelta(days=1))
    assert "2.50 / 10.00 USD" in root.get(LIST).content.decode()


def test_a_model_without_a_price_says_unknown_and_not_zero(root: Client, world: World) -> None:
    Price.objects.all().delete()
    page = root.get(LIST).content.decode()
    assert "unknown" in page
    assert "0.00" not in page


def test_the_list_costs_the_same_for_many_models(root: Client, world: World, django_assert_max_num_queries: Callable[..., object]) -> None:
    for number in range(20):
        model = LLMModel.objects.create(provider=world.provider, model_id=f"m{number}", alias=f"m{number}")
        set_price(model, currency="USD", per_million={"input": "1", "output": "1"})
    with django_assert_max_num_queries(12):
        assert root.get(LIST).status_code == 200


def test_set_price_takes_plain_decimals_and_ends_the_price_before(root: Client, world: World) -> None:
    url = reverse("admin:models_registry_llmmodel_set_price", args=[world.model.pk])
    data = {"currency": "USD", "input": "3.25", "cached_input": "0.5", "cache_write": "", "output": "12", "source": "price page"}
    assert root.post(url, {**data, "valid_from_0": "", "valid_from_1": ""}).status_code == 302
    old, new = world.model.prices.order_by("valid_from")
    assert old.valid_to == new.valid_from
    assert (new.input_micros, new.cached_input_micros) == (3_250_000, 500_000)
    assert (new.cache_write_micros, new.output_micros) == (3_250_000, 12_000_000)
    assert new.source == "price page"


@pytest.mark.parametrize(
    ("field", "value"),
    [("input", "-1"), ("input", "2.0000001"), ("output", "nan"), ("output", "much"), ("output", ""), ("currency", "dollar")],
)
def test_a_bad_price_stands_on_its_field(root: Client, world: World, field: str, value: str) -> None:
    url = reverse("admin:models_registry_llmmodel_set_price", args=[world.model.pk])
    response = root.post(url, {"currency": "USD", "input": "1", "output": "1", field: value})
    assert response.status_code == 200
    assert response.context["form"].errors[field]
    assert world.model.prices.count() == 1


def test_a_price_in_the_past_is_refused_on_its_field(root: Client, world: World) -> None:
    url = reverse("admin:models_registry_llmmodel_set_price", args=[world.model.pk])
    data = {"currency": "USD", "input": "1", "output": "1", "valid_from_0": "2020-01-01", "valid_from_1": "00:00:00"}
    assert root.post(url, data).context["form"].errors["valid_from"]


def form_of(model: LLMModel) -> dict[str, str]:
    """What a browser sends of its page, for one that is off."""
    return {
        "alias": model.alias,
        "provider": str(model.provider_id),
        "model_id": model.model_id,
        "model_type": "chat",
        "priority": "5",
        "quality": "50",
        "capabilities": "[]",
        "unsupported_params": "refuse",
        "over_long": "refuse",
        "visibility": "everyone",
        "prices-TOTAL_FORMS": "0",
        "prices-INITIAL_FORMS": "0",
    }


def test_prices_are_not_edited_in_place(root: Client, world: World) -> None:
    price = world.model.prices.get()
    data = form_of(world.model) | {"is_active": "on"}
    data |= {"prices-TOTAL_FORMS": "2", "prices-INITIAL_FORMS": "1", "prices-0-id": price.pk, "prices-0-DELETE": "on"}
    data |= {"prices-0-input_micros": "1", "prices-1-input_micros": "1", "prices-1-output_micros": "1", "prices-1-currency": "USD"}
    assert root.post(reverse("admin:models_registry_llmmodel_change", args=[world.model.pk]), data).status_code == 302
    world.model.refresh_from_db()
    assert world.model.priority == 5
    assert world.model.prices.get().input_micros == 2_500_000


def test_switching_a_model_by_hand_makes_it_a_persons_decision(root: Client, world: World) -> None:
    """What a sync had switched off is on again when the vendor lists it again; what a person has switched since stays."""
    LLMModel.objects.update(is_active=False, gone_at=timezone.now())
    url = reverse("admin:models_registry_llmmodel_change", args=[world.model.pk])
    data = form_of(world.model)
    assert root.post(url, data).status_code == 302
    assert LLMModel.objects.get().gone_at is not None
    assert root.post(url, data | {"is_active": "on"}).status_code == 302
    assert (LLMModel.objects.get().is_active, LLMModel.objects.get().gone_at) == (True, None)


def test_sync_shows_the_difference_and_changes_nothing(root: Client, world: World, vendor_lists: list[str]) -> None:
    page = root.get(_sync(world)).content.decode()
    assert "gpt-5" in page
    assert "Apply" in page
    assert LLMModel.objects.count() == 1


def test_sync_applies_on_post(root: Client, world: World, vendor_lists: list[str]) -> None:
    vendor_lists.remove("gpt-4o-2024-08-06")
    response = root.post(_sync(world), follow=True)
    assert "1 added, 1 switched off" in response.content.decode()
    assert LLMModel.objects.get(alias="gpt-5").is_active
    world.model.refresh_from_db()
    assert not world.model.is_active


def test_sync_with_nothing_to_do_offers_no_button(root: Client, world: World, vendor_lists: list[str]) -> None:
    vendor_lists.remove("gpt-5")
    LLMModel.objects.update(context_window=1, max_output_tokens=1, capabilities=["an admin's own"])
    page = root.get(_sync(world)).content.decode()
    assert "nothing to change" in page
    assert "Apply" not in page


def test_sync_fills_in_what_was_ticked_and_nothing_else(root: Client, world: World, vendor_lists: list[str]) -> None:
    page = root.get(_sync(world)).content.decode()
    assert "400000" in page
    assert 'value="per_million gpt-5"' in page
    assert 'value="per_million gpt-4o-2024-08-06"' not in page, "that one has a price"
    response = root.post(_sync(world), {"accept": ["context_window gpt-5", "context_window gpt-4o-2024-08-06"]}, follow=True)
    assert "2 values filled in" in response.content.decode()
    rows = LLMModel.objects.order_by("alias").values_list("alias", "context_window", "max_output_tokens", "capabilities")
    assert list(rows) == [("gpt-4o", 128_000, None, []), ("gpt-5", 400_000, None, [])]
    assert Price.objects.count() == 1


def test_sync_takes_a_proposed_price(root: Client, world: World, vendor_lists: list[str]) -> None:
    root.post(_sync(world), {"accept": ["per_million gpt-5"]})
    assert LLMModel.objects.get(alias="gpt-5").prices.get().output_micros == 10_000_000


def test_sync_takes_everything_with_one_tick_and_leaves_what_an_admin_wrote(root: Client, world: World, vendor_lists: list[str]) -> None:
    LLMModel.objects.update(context_window=7, capabilities=["mine"])
    root.post(_sync(world), {"accept_all": "on"})
    old, new = LLMModel.objects.order_by("alias")
    assert (old.context_window, old.max_output_tokens, old.capabilities) == (7, 16_384, ["mine"])
    assert old.prices.get().source == ""
    assert (new.context_window, new.max_output_tokens, new.prices.count()) == (400_000, 128_000, 1)
    assert "tools" in new.capabilities


def test_what_was_ticked_and_is_proposed_no_more_changes_nothing(root: Client, world: World, vendor_lists: list[str]) -> None:
    response = root.post(_sync(world), {"accept": ["context_window gpt-4"]})
    assert "Nothing is proposed for gpt-4" in response.content.decode()
    assert LLMModel.objects.count() == 1


@pytest.mark.parametrize("ticked", [{"accept_all": "on"}, {"accept": ["per_million gpt-5"]}])
def test_a_price_is_taken_only_by_those_who_may_set_one(
    staff: Callable[..., Client], world: World, vendor_lists: list[str], ticked: dict[str, object]
) -> None:
    client = staff("providers.sync_provider", "models_registry.view_llmmodel")
    assert "per_million gpt-5" not in client.get(_sync(world)).content.decode()
    assert client.post(_sync(world), ticked).status_code == 403
    assert LLMModel.objects.count() == 1
    assert client.post(_sync(world), {"accept": ["context_window gpt-5"]}).status_code == 302
    assert LLMModel.objects.get(alias="gpt-5").context_window == 400_000


def test_a_long_list_of_proposals_is_shown_in_part(
    root: Client, world: World, vendor_lists: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models_registry.admin.MAX_PROPOSALS_SHOWN", 1)
    page = root.get(_sync(world)).content.decode()
    assert "1 more are not shown" in page
    assert 'value="context_window gpt-5"' not in page


def test_sync_says_what_failed(root: Client, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(provider: object) -> list[str]:
        raise ProviderUnreachable("The vendor cannot be reached.")

    monkeypatch.setattr("models_registry.services.list_vendor_models", unreachable)
    for response in (root.get(_sync(world)), root.post(_sync(world))):
        assert response.status_code == 200
        assert "The vendor cannot be reached." in response.content.decode()
        assert "Nothing was changed." in response.content.decode()


def test_what_a_vendor_calls_its_models_is_text(root: Client, world: World, vendor_lists: list[str]) -> None:
    vendor_lists.append("<img src=x onerror=alert(1)>")
    page = root.get(_sync(world)).content.decode()
    assert "&lt;img src=x" in page
    assert "<img src=x" not in page


def test_limits_are_edited_and_a_bad_one_stands_on_its_field(root: Client, world: World) -> None:
    page = root.get(reverse("admin:models_registry_llmmodel_change", args=[world.model.pk]))
    form = page.context["adminform"].form
    fields = {name: "" if form[name].value() is None else form[name].value() for name in form.fields}
    fields |= {"is_active": "on", "capabilities": "[]", "prices-TOTAL_FORMS": "0", "prices-INITIAL_FORMS": "0"}
    refused = root.post(page.request["PATH_INFO"], {**fields, "requests_per_minute": "0", "max_concurrency": "-1"})
    assert set(refused.context["adminform"].form.errors) == {"requests_per_minute", "max_concurrency"}
    root.post(page.request["PATH_INFO"], {**fields, "requests_per_minute": "60"})
    world.model.refresh_from_db()
    assert world.model.requests_per_minute == 60


# Importing prices ---------------------------------------------------------------------------------------------------

IMPORT = f"{LIST}import-prices/"


def test_the_catalogues_prices_are_shown_as_a_difference_and_nothing_changes(root: Client, world: World) -> None:
    LLMModel.objects.create(provider=world.provider, model_id="gpt-5", alias="five")
    LLMModel.objects.create(provider=world.provider, model_id="nobody-knows", alias="unheard-of")
    set_price(world.model, currency="EUR", per_million={"input": "9", "output": "9"})
    page = root.get(IMPORT).content.decode()
    assert "1.25 / 10.00 USD" in page
    assert "9.00 / 9.00 EUR" in page
    assert "vendor unheard-of" in page
    assert Price.objects.count() == 2
    assert IMPORT in root.get(LIST).content.decode()


def _keys(client: Client) -> dict[str, str]:
    """Of the prices that the page proposes, by the model's alias."""
    return {row["line"].model: row["line"].key for row in client.get(IMPORT).context["rows"]}


def test_only_what_is_ticked_is_set(root: Client, world: World) -> None:
    five = LLMModel.objects.create(provider=world.provider, model_id="gpt-5", alias="five")
    set_price(world.model, currency="EUR", per_million={"input": "9", "output": "9"})
    keys = _keys(root)
    assert set(keys) == {"five", "gpt-4o"}
    root.post(IMPORT, {"accept": [keys["five"]]})
    assert five.prices.get().input_micros == 1_250_000
    assert world.model.prices.get(valid_to=None).currency == "EUR"
    root.post(IMPORT, {"accept": [keys["gpt-4o"]]})
    assert world.model.prices.get(valid_to=None).currency == "USD"


def test_a_difference_that_is_no_more_takes_all_others_with_it(root: Client, world: World) -> None:
    five = LLMModel.objects.create(provider=world.provider, model_id="gpt-5", alias="five")
    set_price(world.model, currency="EUR", per_million={"input": "9", "output": "9"})
    keys = _keys(root)
    set_price(world.model, currency="EUR", per_million={"input": "8", "output": "8"})
    answer = root.post(IMPORT, {"accept": list(keys.values())}, follow=True)
    assert "look again" in answer.content.decode()
    assert not five.prices.exists()
    assert world.model.prices.get(valid_to=None).input_micros == 8_000_000


def test_prices_are_imported_only_by_those_who_may_set_one(staff: Callable[..., Client], world: World) -> None:
    assert staff("models_registry.view_llmmodel").get(IMPORT).status_code == 403
    assert staff("models_registry.view_llmmodel", "models_registry.add_price", username="other").get(IMPORT).status_code == 200


def test_a_rate_is_added_with_its_errors_on_the_field_and_is_never_edited(root: Client, world: World) -> None:
    fields = {"base": "EUR", "quote": "USD", "rate": "1.1", "valid_from_0": "2026-01-01", "valid_from_1": "00:00:00", "source": ""}
    for bad in ({"rate": "0"}, {"rate": "x"}, {"base": "QQQ"}, {"quote": "EUR"}):
        answer = root.post(RATES + "add/", {**fields, **bad})
        assert set(answer.context["adminform"].form.errors) == set(bad)
    set_price(world.model, currency="EUR", per_million={"input": "3", "output": "1"})
    missing = "There are prices in EUR, and no exchange rate from EUR to USD is in force"
    assert missing in root.get(RATES).content.decode()
    assert root.post(RATES + "add/", fields).status_code == 302
    assert missing not in root.get(RATES).content.decode()
    row = ExchangeRate.objects.get(base="EUR")
    assert row.rate == "1.1"
    assert root.post(f"{RATES}{row.pk}/change/", {**fields, "rate": "2"}).status_code == 403
