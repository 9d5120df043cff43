"""--title, --label, --size and --overlay: what they change in a picture, and what they refuse."""

import re

import pytest

from tests.contracts.test_analyses import logits_file

UNDRAWN = ("--title", "--size", "--overlay")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [logits_file(folder, method) for method in ("natural", "adr")]


def words(path):
    """Return what an SVG says: matplotlib writes each text as a comment before its outlines."""
    return [text.strip() for text in re.findall(r"<!-- (.*?) -->", path.read_text("utf-8"))]


def size(path):
    """Return width and height of an SVG in inches."""
    head = path.read_text("utf-8")[:2000]
    return [float(re.search(rf'{side}="([\d.]+)pt"', head)[1]) / 72 for side in ("width", "height")]


def test_a_picture_has_title_size_and_labels(cli, files, tmp_path):
    plot = tmp_path / "it.svg"
    done = cli("analyze", "entropy", *files, "--plot", plot, "--title", "Entropy & co",
               "--size", "10x8cm", "--overlay", "--label", "adr-s0=Ours", "-q")  # fmt: skip
    assert done.code == 0, done.err
    assert size(plot) == pytest.approx([10 / 2.54, 8 / 2.54], abs=0.01)
    shown = words(plot)
    assert "Entropy &amp; co" in shown or "Entropy & co" in shown
    assert {"Natural (n = 24)", "Ours (n = 24)"} <= set(shown)
    assert not [text for text in shown if "AT+ADR" in text or text == "entropy"]


def test_by_itself_a_picture_names_net_and_attack(cli, files, tmp_path):
    plot = tmp_path / "it.svg"
    assert cli("analyze", "entropy", *files, "--plot", plot, "-q").code == 0
    shown = " ".join(words(plot))
    assert "AT+ADR (adr-s0), PGD-10, ℓ∞, ε" in shown
    assert "Natural (natural-s0), PGD-10" in shown
    assert "entropy (nats)" in shown


def test_what_compares_has_no_subcommand_for_a_title(cli, files, tmp_path):
    plot = tmp_path / "it.svg"
    assert cli("analyze", "compare", *files, "--plot", plot, "-q").code == 0
    assert "AT+ADR, seed 0 less Natural, seed 0 (n = 24)" in " ".join(words(plot))
    assert "compare" not in words(plot)


def test_size_column_stacks_panels(cli, files, tmp_path):
    plot = tmp_path / "it.svg"
    done = cli("analyze", "calibration", files[0], "--plot", plot, "--size", "column",
               "--resamples", 20, "-q")  # fmt: skip
    assert done.code == 0
    width, height = size(plot)
    assert width == pytest.approx(8.5 / 2.54, abs=0.01)
    assert height > width


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--size", "wide"], "--size wide: column, page or WIDTHxHEIGHT"),
        (["--size", "1x900"], "is not in [1.5, 50]"),
        (["--label", "adr"], "--label adr: NAME=TEXT"),
        (["--label", "adr=A", "--label", "adr=B"], "given twice"),
        (["--label", "ard=A"], "did you mean"),
    ],
)
def test_refused(cli, files, tmp_path, options, said):
    plot = tmp_path / "it.svg"
    done = cli("analyze", "entropy", *files, "--plot", plot, *options, "-q")
    assert done.code == 2
    assert said in done.err
    assert not plot.exists()


@pytest.mark.parametrize("option", UNDRAWN)
def test_nothing_is_drawn_without_plot(cli, files, option):
    value = {"--title": ["x"], "--size": ["page"], "--overlay": []}[option]
    done = cli("analyze", "entropy", files[0], option, *value)
    assert (done.code, done.out) == (2, "")
    assert f"{option}: nothing is drawn without --plot" in done.err


def test_nets_that_share_no_panels(cli, files, tmp_path):
    done = cli("analyze", "classes", *files, "--plot", tmp_path / "it.png", "--overlay")
    assert (done.code, done.out) == (2, "")
    assert "--overlay: nets share no panels in analyze classes" in done.err


def test_labels_are_in_documents_and_not_in_records(cli, files, tmp_path):
    out = tmp_path / "t.tex"
    done = cli("analyze", "table", *files, "--label", "adr=Ours", "-o", out, "--json", "-q")
    assert done.code == 0, done.err
    assert "Ours" in out.read_text("utf-8")
    assert [group["method"] for group in done.records[0]["groups"]] == ["natural", "adr"]


def test_python_takes_the_same_options(files, tmp_path):
    import advkit

    found = advkit.analyze("entropy", files[1], title="T", label="adr=Ours", size="5x4")
    figure = found.figure()
    assert figure.get_size_inches() == pytest.approx([5, 4])
    assert figure._suptitle.get_text() == "T"


def test_an_error_of_an_analysis_without_a_picture_names_the_analysis(cli, tmp_path):
    outcome = cli("analyze", "calibration", tmp_path / "none.h5")
    assert outcome.code == 3
    assert outcome.err.startswith("advkit analyze calibration: error: ")


def test_a_union_names_its_net(cli, tiny_run, tmp_path):
    best, logits = tiny_run / "best.safetensors", [tmp_path / "a.h5", tmp_path / "b.h5"]
    for path, norm, eps in zip(logits, ("linf", "l2"), ("0.1", "0.5"), strict=True):
        given = ["--attack", "fgsm", "--norm", norm, "--eps", eps, "-o", path, "-q"]
        assert cli("attack", best, *given).code == 0
    plot = tmp_path / "it.svg"
    assert cli("analyze", "union", *logits, "--plot", plot, "-q").code == 0
    net = f"({tmp_path.name})"  # logits are called by their folder, as their run is
    assert [text for text in words(plot) if text.endswith(net)]
    titled = ["--plot", plot, "--overwrite", "--title", "Ours", "-q"]
    assert cli("analyze", "union", *logits, *titled).code == 0
    assert "Ours" in words(plot)
    assert not [text for text in words(plot) if text.endswith(net)]
