"""Tables as Markdown, LaTeX and HTML: what they say, and that foreign text stays text."""

import base64
import csv
import functools
import io
import itertools
import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from advkit.analyses import calibration, cost, table
from advkit.analyses.tables import pictures as _pictures
from advkit.artifacts import analysis
from advkit.artifacts.document import Cell, Document, Gallery, Sheet, Source, markdown
from advkit.artifacts.latex import escape, latex
from advkit.artifacts.page import html
from tests.analyses.tables.test_leads import verdicts
from tests.analyses.test_cost import run_of
from tests.analyses.test_table import logits_of, three_seeds

EVIL = '<script>alert(1)</script> & "x" | a_b $5% #1 {~^\\} `c` *d*'
DESCRIPTION = {"schema": 1, "kind": "analysis", "config": {"analysis": "table"}, "digest": "x"}
STAND_IN = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"></svg>'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def evil():
    cells = (Cell(EVIL), Cell("50.00 ± 1.00", bold=True), Cell("[1, 2]"))
    sheet = Sheet(EVIL, (("", 1), (EVIL, 2)), (EVIL, "Best", "Final"), 1, (cells, cells),
                  frozenset({1}), (EVIL,))  # fmt: skip
    return Document(EVIL, (sheet,), (EVIL,), sources=(Source(EVIL, {EVIL: [EVIL]}),))


def two_lines():
    """Two methods of which one leads, best and final, seed 0."""
    return [verdicts("adr", range(20)), verdicts("adr", range(19), role="final"),
            verdicts("at", range(10)), verdicts("at", range(11), role="final")]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    """Pages show a calibration's curves, whatever its intervals are resampled from."""
    with pytest.MonkeyPatch.context() as patch:
        few = functools.partial(calibration.analyze, resamples=20)
        patch.setattr(calibration, "analyze", few)
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """Pages whose pictures are all there but not drawn: a real one takes a tenth of a second."""
    monkeypatch.setattr(_pictures, "svg", lambda panel: STAND_IN)


@pytest.fixture(scope="module")
def one_line():
    """The page of one method, best and final, drawn: both forests, the gap and 7 panels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_pictures, "SHOWN", 1)
        patch.setenv("SOURCE_DATE_EPOCH", "1000000000")
        return page_of(*two_lines()[:2])


class Page(HTMLParser):
    """Collects tags, text, ids and references; notes what is not closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.tags, self.attrs, self.cells = [], [], [], [], []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attrs.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        self.text += data
        if "table" in self.open and ("td" in self.open or "th" in self.open):
            self.cells[-1][-1] += data

    def all(self, name):
        return [attrs[name] for _, attrs in self.attrs if name in attrs]


def page_of(*inputs, **more):
    return html(table.analyze(inputs, **more).document, DESCRIPTION)


# --- Markdown ---


def rows_of(text):
    """Cells of all tables as an independent parser reads them, each (text, bold)."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows, inside = [], False
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        inside = {"th_open": True, "td_open": True, "th_close": False, "td_close": False}.get(
            token.type, inside
        )
        if token.type == "inline" and inside:
            words = "".join(child.content for child in token.children)
            rows[-1].append((words, any(c.type == "strong_open" for c in token.children)))
    return rows


def test_markdown_says_what_the_table_says():
    head, *rows = rows_of(markdown(table.analyze(three_seeds()).document))
    assert [text for text, _ in head] == [
        "Method", "Seeds", "PGD-50 (%) Best", "PGD-50 (%) Final", "PGD-50 (%) Diff.",
        "Standard accuracy (%) Best", "Standard accuracy (%) Final", "Standard accuracy (%) Diff.",
    ]  # fmt: skip
    assert [[text for text, _ in row] for row in rows] == [
        ["AT+ADR", "3", "60.00 ± 10.00", "43.33 ± 15.28", "16.67 ± 20.82", "80.00 ± 10.00",
         "86.67 ± 5.77", "−6.67 ± 5.77"],
    ]  # fmt: skip


def test_notes_explain_what_is_shown():
    def notes(*inputs):
        (sheet,) = table.analyze(inputs).document.sheets
        return "\n".join(sheet.notes)

    assert "Wilson" not in notes(*three_seeds())
    assert "round brackets" not in notes(*three_seeds())
    assert "test examples: digits 10" in notes(*three_seeds())
    assert "seeds 0, 1, 2" in notes(*three_seeds())
    some = notes(*three_seeds()[:4])  # one final among three best
    assert "Wilson" in some
    assert "round brackets" in some
    assert "McNemar" in notes(*two_lines())
    assert "McNemar" not in notes(logits_of(), logits_of("at"))


def test_bold_only_where_a_line_leads():
    _, first, second = rows_of(markdown(table.analyze(two_lines()).document))
    assert [bold for _, bold in first] == [False, False, True, True, False, False, False, False]
    assert first[2][0].startswith("50.00")
    assert not any(bold for _, bold in second)


def test_markdown_leaves_foreign_text_as_it_is():
    text = markdown(evil())
    head, *rows = rows_of(text)
    assert head[0][0] == f"{EVIL}"
    assert head[1][0] == f"{EVIL} Best"
    assert [cell[0] for cell in rows[0]] == [EVIL, "50.00 ± 1.00", "[1, 2]"]
    kinds = {c.type for t in MarkdownIt("commonmark").parse(text) for c in (t.children or ())}
    assert kinds <= {"text", "text_special", "strong_open", "strong_close", "softbreak"}


# --- LaTeX ---


def test_latex_escapes():
    assert escape("a_b & 50% #1 $x$ {y} ~^\\") == (
        r"a\_b \& 50\% \#1 \$x\$ \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert escape("1.00 ± 0.50, −2, ε τ λ") == (
        r"1.00 $\pm$ 0.50, $-$2, $\varepsilon$ $\tau$ $\lambda$"
    )
    assert escape("two\nlines\x00") == "two lines?"


def test_latex_is_a_booktabs_table():
    text = latex(table.analyze(two_lines()).document)
    assert r"\multicolumn{3}{c}{PGD-50 (\%)}" in text
    assert r"\cmidrule(lr){3-5}\cmidrule(lr){6-8}" in text
    (row,) = re.findall(r"^AT\+ADR & 1 & (.*) \\\\$", text, re.MULTILINE)
    assert row.startswith(r"\textbf{50.00 [35.2, 64.8]} & \textbf{47.50 [")
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert [text.count(rf"\{rule}") for rule in ("toprule", "bottomrule")] == [1, 1]
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    columns = [line.replace(r"\multicolumn{3}", "& & ").count("&") for line in body]
    assert set(columns) == {7}


def test_a_bracket_is_no_argument_of_the_line_break():
    lines = latex(evil()).splitlines()
    assert not [line for line in lines if re.search(r"\\\\ *[\[*]", line)]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(tmp_path):
    seeds = table.analyze([*three_seeds(), *two_lines()[2:]], spread="range", against="adr-table7")
    for name, document in (("a", evil()), ("b", seeds.document)):
        (tmp_path / f"{name}.tex").write_text(latex(document), encoding="utf-8")
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
        r"\input{a}\input{b}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:]
    assert "Overfull" not in found.stdout.split("b.tex")[-1]


# --- HTML ---


def require_alone(text):
    page = Page(text)
    assert (page.open, page.faults) == ([], [])
    assert len(set(page.all("id"))) == len(page.all("id")) > 3
    assert all(src.startswith("data:image/svg+xml;base64,") for src in page.all("src"))
    assert not page.all("href")
    assert not {"link", "iframe", "object", "base"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'" in text


@pytest.mark.usefixtures("undrawn")
def test_html_is_well_formed_and_alone():
    require_alone(page_of(*two_lines(), against="adr-table1"))


def test_pictures_are_well_formed_and_alone(one_line):
    require_alone(one_line)
    pictures = [base64.b64decode(src.partition(",")[2]) for src in Page(one_line).all("src")]
    assert len(pictures) == 3 + 5
    for each in pictures:
        root = ElementTree.fromstring(each)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter())) > 50, "axes, labels and marks"
        targets = [value for part in root.iter() for name, value in part.items()
                   if name.endswith("href")]  # fmt: skip
        assert all(target.startswith("#") for target in targets), "nothing from elsewhere"
        assert not re.search(rb"url\((?!#)|@import|<script", each)


@pytest.mark.usefixtures("undrawn")
def test_html_can_be_read_by_anyone():
    page = Page(page_of(*two_lines(), against="adr-table1"))
    assert dict(page.attrs)["html"] == {"lang": "en"}
    headings = [int(tag[1]) for tag in page.tags if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))
    assert all(attrs.get("alt") for tag, attrs in page.attrs if tag == "img")
    assert all(a.get("scope") in ("col", "row", "colgroup") for t, a in page.attrs if t == "th")
    assert set(page.all("aria-labelledby")) <= set(page.all("id"))


@pytest.mark.usefixtures("undrawn")
def test_html_says_what_the_table_says():
    page = Page(page_of(*two_lines()))
    assert page.cells[2][:3] == ["AT+ADR", "1", "50.00 [35.2, 64.8]"]
    assert page.tags.count("strong") == 2
    assert (
        page.tags.count("img") == 3 + 5
    )  # forests and the gap; five pictures that all files share
    assert "AT+ADR best 50.00" in page.all("alt")[0]
    assert '"attack_steps"' not in page.text
    assert '"lr": 0.1' in page.text  # what the files say of themselves


@pytest.mark.usefixtures("undrawn")
def test_html_escapes_what_comes_from_files():
    text = html(evil(), DESCRIPTION)
    page = Page(text)
    assert (page.open, page.faults) == ([], [])
    assert page.tags.count("script") == 1, "ours, and none that came from a file"
    assert page.cells[-1][0] == EVIL
    inputs = [logits_of(name) for name in ("adr", "at")]
    for each in inputs:
        object.__setattr__(each, "path", "runs/<script>alert(1)</script>/x.h5")
        each.info["arch"] = '"><img src=x onerror=alert(1)>'
    page = Page(page_of(*inputs))
    assert [a for t, a in page.attrs if t == "script"] == [{}]
    assert not [a for t, a in page.attrs if "onerror" in a]
    assert '"><img src=x onerror=alert(1)>' in page.text


def test_same_page_twice(one_line, monkeypatch):
    monkeypatch.setattr(_pictures, "SHOWN", 1)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert page_of(*two_lines()[:2]) == one_line
    assert "None" not in Page(one_line).text


@pytest.mark.parametrize(
    "logits",
    [logits_of(n=1, robust=1, clean=1), logits_of(robust=None)],
    ids=["one example", "no attack"],
)
def test_a_page_of_little(logits):
    page = Page(page_of(logits))
    assert (page.open, page.faults) == ([], [])
    assert len(page.all("src")) > 3
    assert "None" not in page.text


def test_only_some_files_are_drawn():
    inputs = [logits_of(seed=k, robust=k % 8) for k in range(8)]
    galleries = table.analyze(inputs).document.figures()
    assert [each.heading for each in galleries] == ["Accuracies", "Outputs"]
    assert galleries[1].told == "Of 6 of 8 files, each line's first ones first."
    assert len(galleries[1].figures) == 5


def test_pictures_wait_for_the_page():
    drawn = []
    document = Document("t", (), figures=lambda: drawn.append(1) or [Gallery("h", "", ())])
    markdown(document)
    latex(document)
    assert not drawn
    html(document, DESCRIPTION)
    assert drawn


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
@pytest.mark.parametrize("width", [500, 1400])
def test_in_a_browser(tmp_path, width):
    """Nothing is asked of the network or said on the console, and the page is not too wide.

    Headless Chromium makes no window under 500 pixels, so a frame stands for a telephone.
    """
    path = tmp_path / "page.html"
    path.write_text(page_of(*three_seeds(), *two_lines()[2:], spread="variance",
                            against="adr-table2"), encoding="utf-8")  # fmt: skip
    inside = 400 if width == 500 else width
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="f" src="page.html" style="width:{inside}px;height:900px;border:0"></iframe>'
        "<script>onload = () => { const d = document.getElementById('f').contentDocument;"
        "document.title = [d.documentElement.scrollWidth, d.documentElement.clientWidth,"
        "[...d.images].filter(i => !i.naturalWidth).length, d.images.length, turned(d)].join(' ')};"
        "function turned(d) { const b = d.querySelector('thead button'); b.click();"
        "return b.parentElement.getAttribute('aria-sort') }</script>"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
               "--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND",
               f"--user-data-dir={tmp_path}/profile", f"--window-size={width + 100},1000",
               "--virtual-time-budget=8000", "--dump-dom", f"file://{frame}"]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "CONSOLE" not in found.stderr
    (title,) = re.findall(r"<title>(.*?)</title>", found.stdout)
    *numbers, turn = title.split()
    scroll, client, broken, images = map(int, numbers)
    assert turn == "ascending", "the policy lets the page's own script run"
    assert inside - 20 <= client <= inside  # a scroll bar may take the rest
    assert scroll <= client
    assert (broken, images > 3) == (0, True)


# --- files ---


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("suffix", [".md", ".tex", ".HTML"])
def test_written_and_found_again(tmp_path, suffix):
    result = table.analyze(two_lines())
    path = tmp_path / f"t{suffix}"
    description = {key: value for key, value in DESCRIPTION.items() if key != "digest"}
    analysis.check(path, table.FORMATS)
    analysis.write(path, result, description)
    analysis.require_same(path, result, description)
    other = table.analyze(two_lines()[:2])
    with pytest.raises(analysis.MismatchError, match="something else"):
        analysis.require_same(path, other, description)


def test_an_analysis_without_document_writes_none(tmp_path):
    with pytest.raises(analysis.UsageError, match=r"t\.md: the name must end in .json, .csv, .h5"):
        analysis.check(tmp_path / "t.md")


def test_csv_round_trip():
    result = table.analyze(two_lines())
    head, *rows = csv.reader(io.StringIO(analysis.csv_text(result)))
    assert tuple(head) == table._COLUMNS
    kinds = {"n": int, "seed": int, "steps": int, "group": int}
    kinds |= {
        name: float for name in head if "accuracy" in name or name.endswith(("_low", "_high"))
    }
    found = [tuple(kinds.get(k, str)(c) for k, c in zip(head, row, strict=True)) for row in rows]
    assert found == list(result.rows)


# --- spread, reruns, cost ---


def test_spreads_worked_by_hand():
    """Robust at best 0.5, 0.6, 0.7: variance 0.01, which is 100 squared points."""
    (group,) = table.analyze(three_seeds()).groups
    assert group["robust_best_variance"] == pytest.approx(0.01)
    assert (group["robust_best_min"], group["robust_best_max"]) == (0.5, 0.7)
    cells = {s: table.analyze(three_seeds(), spread=s).text for s in ("sd", "variance", "range")}
    assert "60.00 ± 10.00" in cells["sd"]
    assert "60.00 (var 100)" in cells["variance"]
    assert "60.00 (50.00 to 70.00)" in cells["range"]


def test_a_column_of_zeros_is_a_column():
    """Natural nets under attack: 0 is a figure, not the lack of one."""
    nets = [logits_of("natural", robust=0, seed=k) for k in (1, 2)]
    _, sheet = table.analyze(nets, spread="variance").document.sheets
    assert "Robust best" in sheet.head


def test_reruns_as_in_table_7():
    """Final robust 0.4, 0.6, 0.3: mean 13/30, variance 7/300."""
    _, sheet = table.analyze(three_seeds(), spread="variance").document.sheets
    rows = [[cell.text for cell in row[4:]] for row in sheet.rows]
    assert sheet.head[4:] == (
        "Run",
        "Robust best",
        "Robust final",
        "Standard best",
        "Standard final",
    )
    assert rows == [
        ["seed 0", "50.00", "40.00", "80.00", "90.00"],
        ["seed 1", "60.00", "60.00", "90.00", "90.00"],
        ["seed 2", "70.00", "30.00", "70.00", "80.00"],
        ["mean", "60.00", "43.33", "80.00", "86.67"],
        ["variance", "100.000", "233.333", "100.000", "33.333"],
    ]
    assert len(table.analyze(three_seeds()).document.sheets) == 1
    assert len(table.analyze([logits_of()], spread="variance").document.sheets) == 1


def test_cost_in_every_format(tmp_path):
    runs = [run_of(tmp_path, "a"), run_of(tmp_path, "<b>", (9.0, 4.0, 4.0), method="at_x")]
    document = cost.analyze(runs, against="adr-table6").document
    rows = rows_of(markdown(document))
    assert [text for text, _ in rows[1]] == [
        "digits", "small-cnn", "AT+ADR", "a", "cpu × 2", "3", "3", "33.33", "0.00417", "1.00",
    ]  # fmt: skip
    assert r"at\_x" in latex(document)
    page = Page(html(document, DESCRIPTION))
    assert (page.open, page.faults, "b" in page.tags) == ([], [], False)
    assert "5127" not in page.text, "seconds of other data and nets"
    assert "nothing here matches a published line" in page.text


def test_the_picture_of_the_table():
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    robust, clean = table.analyze(two_lines()).panels
    figure, axes = plt.subplots()
    robust(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["AT+ADR", "PGD-AT"]
    best, final = axes.containers
    assert list(best.lines[0].get_xdata()) == pytest.approx([50.0, 25.0])
    assert list(final.lines[0].get_xdata()) == pytest.approx([47.5, 27.5])
    low, high = best.lines[2][0].get_segments()[0][:, 0]
    assert (low, high) == pytest.approx((35.2, 64.8), abs=0.05)  # Wilson of 20 in 40
    assert "%" in axes.get_xlabel()
    plt.close(figure)
    many = table.analyze([logits_of("at", lr=k / 10) for k in range(1, 41)]).panels[0]
    assert many.inches > 2 * robust.inches
    assert clean.title == "standard accuracy"
    (alone,) = table.analyze([logits_of(robust=None)]).panels
    assert alone.title == "standard accuracy"


def test_an_attack_without_target_classes_is_named():
    """Only targeted attacks have them: APGD-CE's file says whose it is and no more."""
    logits = logits_of(seed=0, robust=3)
    logits.info["implementation"] = "pyautoattack 0.2.0"
    sheet = table.analyze([logits]).document.sheets[0]
    assert any("attack by pyautoattack 0.2.0" in note and "targets" not in note
               for note in sheet.notes)  # fmt: skip
