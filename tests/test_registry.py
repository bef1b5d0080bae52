"""The registry: names, cards, factories, and what it says of a name it does not hold."""

import pytest

from sempart_core import SempartError
from sempart_core.registry import Card, Registry


@pytest.fixture
def animals() -> Registry:
    r = Registry("animal")
    r.register(Card("cat", "a cat", licence="CC0", extra={"legs": 4}), lambda: "meow")
    r.register(Card("dog", "a dog"), lambda: "woof")
    return r


def test_a_name_leads_to_its_factory_and_card(animals):
    assert animals["cat"]() == "meow"
    assert animals.card("cat").extra == {"legs": 4}
    assert [c.name for c in animals.cards()] == list(animals) == ["cat", "dog"]
    assert "dog" in animals and len(animals) == 2


def test_register_is_a_decorator_that_returns_what_it_decorates(animals):
    def cow():
        return "moo"

    assert animals.register(Card("cow", "a cow"))(cow) is cow
    assert animals["cow"] is cow


@pytest.mark.parametrize("ask", [lambda r: r["cow"], lambda r: r.card("cow")])
def test_an_unknown_name_is_answered_with_the_known_ones(animals, ask):
    with pytest.raises(SempartError, match=r"unknown animal 'cow'.*cat, dog"):
        ask(animals)


def test_get_falls_back(animals):
    assert animals.get("cow") is None
    assert animals.get("cat")() == "meow"


def test_a_name_is_used_once(animals):
    with pytest.raises(SempartError, match="'cat' is registered already"):
        animals.register(Card("cat", "another"), lambda: "")
    assert animals.card("cat").what == "a cat"
