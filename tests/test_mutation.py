"""The mutation check itself: its list fits the sources, and one mutant a folder is noticed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "mutate"


def loaded() -> ModuleType:
    """The script as a module; it has no ending to import it by."""
    module = ModuleType("mutate")
    module.__dict__["__file__"] = str(SCRIPT)
    sys.modules["mutate"] = module  # dataclasses look their module up
    exec(compile(SCRIPT.read_text(encoding="utf-8"), SCRIPT, "exec"), module.__dict__)
    return module


if not SCRIPT.exists():
    pytest.skip("a copy without scripts: this test is not for mutants", allow_module_level=True)

mutate = loaded()
MUTANTS = mutate.read_mutants()
FOLDERS = {"ir", "evaluate", "passes", "quantise", "convert", "run", "verify", "measure", "tune"}
ONE = replace(MUTANTS[0], name="one", file="a.py", old="x >= 1", new="x > 1", tests=("test_a.py::test_one",))


# ---------------------------------------------------------------- the list
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_every_mutant_still_applies(mutant):
    """When this fails, a source changed: change the mutant in scripts/mutants.toml with it."""
    assert mutate.applied(mutant).count(mutant.new) >= 1
    assert list(mutate.missing_tests(mutant)) == []
    assert mutant.tests


def test_the_list_is_broad():
    assert len(MUTANTS) >= 40
    assert {m.folder for m in MUTANTS} == FOLDERS
    assert sorted(each.folder for each in MUTANTS if each.fast) == sorted(mutate.FOLDERS)


def test_one_mutant_a_folder_is_noticed():
    """That their tests pass on unbroken sources is seen where they stand, in this same run."""
    fast = [each for each in MUTANTS if each.fast]
    verdicts = mutate.judge_all(fast, sys.executable)
    assert [each.ending for each in verdicts] == [mutate.Ending.FAILED] * 4, mutate.table(verdicts)


# ---------------------------------------------------------------- the script, on a tiny project
@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A project of one function and one test."""
    (tmp_path / "src" / "spikemorph").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "src" / "spikemorph" / "__init__.py").touch()
    (tmp_path / "src" / "spikemorph" / "a.py").write_text("def f(x):\n    return x >= 1\n")
    test = (
        "from spikemorph.a import f\n\ndef test_one():\n    assert f(1)\n\ndef test_two():\n    assert f(2)\n"
    )
    (tmp_path / "tests" / "test_a.py").write_text(test)
    return tmp_path


@pytest.mark.parametrize(
    ("test", "new", "ending"),
    [
        ("test_a.py::test_one", "x > 1", "FAILED"),
        ("test_a.py::test_two", "x > 1", "PASSED"),
        ("test_a.py::test_one", "next(i for i in iter(int, 1) if i)", "TIMEOUT"),
    ],
)
def test_a_mutant_lives_fails_or_takes_too_long(tiny, test, new, ending):
    """The copies see the broken source, not the one this test runs on, and the project stays as it was."""
    timeout = 2.0 if ending == "TIMEOUT" else 60.0
    verdict = mutate.judge(replace(ONE, tests=(test,), new=new), sys.executable, tiny, timeout)
    assert verdict.ending is mutate.Ending[ending]
    assert verdict.row()["noticed"] == (ending != "PASSED")
    assert "x >= 1" in (tiny / "src" / "spikemorph" / "a.py").read_text()


def test_tests_that_fail_anyway_prove_nothing(tiny):
    (tiny / "tests" / "test_a.py").write_text("def test_one():\n    assert False\n")
    with pytest.raises(mutate.Misfit, match="without any mutant"):
        mutate.check_unbroken([ONE], sys.executable, tiny)


def test_a_test_that_is_not_there_is_no_notice(tiny):
    gone = replace(ONE, tests=("test_a.py::test_gone", "test_b.py"))
    assert list(mutate.missing_tests(gone, tiny)) == ["test_a.py::test_gone", "test_b.py"]
    with pytest.raises(mutate.Misfit, match="pytest ended with 4"):
        mutate.judge(gone, sys.executable, tiny)


@pytest.mark.parametrize("change", [{"old": "x >= 2"}, {"old": "x"}, {"new": "x >= 1"}, {"file": "b.py"}])
def test_a_mutant_that_does_not_apply_exactly_once_is_told(tiny, change):
    with pytest.raises(mutate.Misfit, match="not once"):
        mutate.applied(replace(ONE, **change), tiny)


ENTRY = "[[mutant]]\nname = 'a'\nfile = 'a'\nold = ''\nnew = ''\ntests = []\n"


@pytest.mark.parametrize("text", ["[[mutant]]\nname = 'a'\n", f"{ENTRY}fsat = true\n"])
def test_an_entry_that_is_no_mutant_is_told(tmp_path, text):
    (tmp_path / "list.toml").write_text(text)
    with pytest.raises(mutate.Misfit, match="no mutant"):
        mutate.read_mutants(tmp_path / "list.toml")


def test_two_mutants_of_one_name_are_told(tmp_path):
    (tmp_path / "list.toml").write_text(ENTRY * 2)
    with pytest.raises(mutate.Misfit, match="more than one mutant called a"):
        mutate.read_mutants(tmp_path / "list.toml")


def test_results(tmp_path):
    verdicts = [
        mutate.Verdict(replace(ONE, name=name), mutate.Ending[name], 1.26) for name in ("FAILED", "PASSED")
    ]
    mutate.write_results(verdicts, tmp_path / "new" / "mutation.json")
    rows = json.loads((tmp_path / "new" / "mutation.json").read_text())
    assert rows[1] == {
        "mutant": "PASSED",
        "file": "src/spikemorph/a.py",
        "noticed": False,
        "timeout": False,
        "seconds": 1.3,
        "tests": ["test_a.py::test_one"],
    }
    assert mutate.table(verdicts).splitlines()[-1] == "2 mutants, 1 live, 0 noticed by timeout only"
