"""Does with every library of the image for data analysis what it is there for, and prints its name.

Runs inside the image, in a directory that it may write to: `cargo xtask image --try` and the suite of the SDK for a real
cluster bring it there. What does not work ends it with a traceback.
"""

import io
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
def numpy():
    import numpy

    matrix = numpy.array([[3.0, 1.0], [1.0, 2.0]])
    assert numpy.allclose(numpy.linalg.solve(matrix, [9.0, 8.0]), [2.0, 3.0])
    square = numpy.random.default_rng(1).normal(size=(300, 300))
    assert numpy.allclose(square @ numpy.linalg.inv(square), numpy.eye(300), atol=1e-6)


@check
def scipy():
    from scipy import integrate, optimize, signal, sparse, stats

    assert abs(optimize.minimize(lambda x: (x[0] - 3) ** 2, [0.0]).x[0] - 3) < 1e-4
    assert abs(integrate.quad(lambda x: x**2, 0, 3)[0] - 9) < 1e-9
    assert stats.ttest_ind([1, 2, 3, 4], [11, 12, 13, 14]).pvalue < 0.001
    assert sparse.linalg.spsolve(sparse.eye(3, format="csc") * 2, [2.0, 4.0, 6.0]).tolist() == [1, 2, 3]
    assert len(signal.find_peaks([0, 2, 0, 3, 0])[0]) == 2


@check
def pandas():
    import pandas

    frame = pandas.read_csv(io.StringIO("day,town,sold\n2026-01-01,A,1\n2026-01-02,A,2\n2026-01-01,B,4\n"), parse_dates=["day"])
    assert frame.groupby("town")["sold"].sum().to_dict() == {"A": 3, "B": 4}
    assert frame.pivot(index="day", columns="town", values="sold").shape == (2, 2)
    # Time zones come from the image.
    assert str(frame["day"].dt.tz_localize("Europe/Berlin").iloc[0]) == "2026-01-01 00:00:00+01:00"
    with sqlite3.connect(":memory:") as database:
        frame.to_sql("sales", database, index=False)
        assert pandas.read_sql("select sum(sold) as total from sales", database)["total"].tolist() == [7]
    # Written by jinja2; tables of web pages are read by lxml, and by bs4 with html5lib.
    page = frame.style.to_html()
    for flavor in ("lxml", "bs4"):
        assert pandas.read_html(io.StringIO(page), flavor=flavor)[0]["sold"].tolist() == [1, 2, 4]
    frame.to_pickle("frame.pickle.xz")
    assert pandas.read_pickle("frame.pickle.xz").equals(frame)


@check
def openpyxl():
    import pandas

    frame = pandas.DataFrame({"name": ["ü", "b"], "value": [1.5, 2.5]})
    # Written by two libraries and read by one; the third reads and writes what LibreOffice does.
    for path, engine, reader in [
        ("openpyxl.xlsx", "openpyxl", "openpyxl"),
        ("xlsxwriter.xlsx", "xlsxwriter", "openpyxl"),
        ("odf.ods", "odf", "odf"),
    ]:
        frame.to_excel(path, index=False, engine=engine)
        assert pandas.read_excel(path, engine=reader).equals(frame), engine


@check
def xlsxwriter():
    import xlsxwriter

    with xlsxwriter.Workbook("chart.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write_column("A1", [1, 3, 2])
        chart = book.add_chart({"type": "line"})
        chart.add_series({"values": "=Sheet1!$A$1:$A$3"})
        sheet.insert_chart("C1", chart)
    assert Path("chart.xlsx").stat().st_size > 4000


@check
def odf():
    from odf import opendocument, teletype, text

    document = opendocument.OpenDocumentText()
    document.text.addElement(text.P(text="one paragraph"))
    document.save("text.odt")
    paragraphs = opendocument.load("text.odt").getElementsByType(text.P)
    assert [teletype.extractText(each) for each in paragraphs] == ["one paragraph"]


@check
def xlrd():
    import xlrd

    try:
        xlrd.open_workbook(file_contents=b"PK no workbook of old")
    except xlrd.XLRDError as error:
        assert "Expected BOF record" in str(error) or "supported" in str(error), error
    else:
        raise AssertionError("no error")


@check
def matplotlib():
    import matplotlib
    from matplotlib import pyplot
    from PIL import Image

    assert matplotlib.get_backend().lower() == "agg"
    figure, axes = pyplot.subplots(figsize=(4, 3), dpi=100)
    axes.plot([1, 2, 3], [1, 4, 9], label="ü $x^2$")
    axes.set_title("squares")
    axes.legend()
    for suffix, start in [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml"), ("jpg", b"\xff\xd8")]:
        figure.savefig(f"figure.{suffix}")
        assert Path(f"figure.{suffix}").read_bytes().startswith(start), suffix
    # Fonts are subset into a page by fontTools.
    with pyplot.rc_context({"pdf.fonttype": 42}):
        figure.savefig("type42.pdf")
    pyplot.close(figure)
    with Image.open("figure.png") as picture:
        assert picture.size == (400, 300) and len(picture.convert("L").getcolors()) > 50


@check
def seaborn():
    import pandas
    import seaborn

    frame = pandas.DataFrame({"x": range(20), "y": [value * value for value in range(20)], "odd": [0, 1] * 10})
    seaborn.set_theme()
    seaborn.relplot(frame, x="x", y="y", hue="odd").savefig("seaborn.png")
    seaborn.heatmap(frame.corr()).figure.savefig("heatmap.png")
    assert min(Path(name).stat().st_size for name in ("seaborn.png", "heatmap.png")) > 4000


@check
def PIL():
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (64, 64), "white")
    font = ImageFont.truetype("DejaVuSans.ttf", 24)
    ImageDraw.Draw(picture).text((4, 4), "ü", fill="black", font=font)
    assert picture.getextrema()[0] == (0, 255)
    for format in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "JPEG2000"):
        file = io.BytesIO()
        picture.save(file, format)
        with Image.open(file) as again:
            assert (again.format, again.size) == (format, (64, 64))


@check
def sklearn():
    import joblib
    from sklearn import datasets, ensemble, linear_model, model_selection, pipeline, preprocessing

    features, target = datasets.load_iris(return_X_y=True)
    train, test, expected, known = model_selection.train_test_split(features, target, random_state=1)
    models = [
        pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()),
        ensemble.RandomForestClassifier(n_estimators=20, random_state=1),
        # With OpenMP.
        ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=1),
    ]
    for model in models:
        score = model.fit(train, expected).score(test, known)
        assert score > 0.9, (model, score)
        joblib.dump(model, "model.joblib")
        assert joblib.load("model.joblib").score(test, known) == score
    # In processes of its own, which pass large arrays through memory that is a file.
    assert min(model_selection.cross_val_score(models[0], features, target, n_jobs=2)) > 0.85


@check
def joblib():
    import joblib

    calls = []
    square = joblib.Memory("cache", verbose=0).cache(lambda value: calls.append(value) or value * value)
    assert [square(3), square(3), len(calls)] == [9, 9, 1]
    assert joblib.Parallel(n_jobs=2)(joblib.delayed(pow)(2, power) for power in range(4)) == [1, 2, 4, 8]


@check
def xgboost():
    import numpy
    import xgboost

    features = numpy.random.default_rng(1).normal(size=(400, 4))
    target = (features[:, 0] + features[:, 1] > 0).astype(int)
    model = xgboost.XGBClassifier(n_estimators=30, max_depth=3, n_jobs=2).fit(features, target)
    assert model.score(features, target) > 0.95
    model.save_model("model.json")
    again = xgboost.XGBClassifier()
    again.load_model("model.json")
    assert (again.predict(features) == model.predict(features)).all()


@check
def statsmodels():
    import pandas
    import statsmodels.api
    import statsmodels.formula.api

    frame = pandas.DataFrame({"x": range(30), "group": ["a", "b", "c"] * 10})
    frame["y"] = 2 * frame["x"] + 1 + (frame["group"] == "b")
    result = statsmodels.formula.api.ols("y ~ x + group", frame).fit()
    assert abs(result.params["x"] - 2) < 1e-6 and "R-squared" in str(result.summary())
    series = pandas.Series([value % 4 + value / 10 for value in range(48)])
    assert len(statsmodels.api.tsa.seasonal_decompose(series, period=4).seasonal) == 48


@check
def sympy():
    import sympy

    x = sympy.symbols("x")
    assert sympy.integrate(x * sympy.cos(x), x) == x * sympy.sin(x) + sympy.cos(x)
    assert sympy.solve(x**2 - 2, x) == [-sympy.sqrt(2), sympy.sqrt(2)]


@check
def networkx():
    import networkx
    from matplotlib import pyplot

    graph = networkx.Graph([("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("d", "e")])
    assert networkx.shortest_path(graph, "a", "e") == ["a", "d", "e"]
    assert max(networkx.pagerank(graph).items(), key=lambda item: item[1])[0] == "d"
    networkx.draw(graph, with_labels=True)
    pyplot.savefig("graph.png")
    pyplot.close()


@check
def requests():
    import requests

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<p>one<p>two")

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answer = requests.get(f"http://127.0.0.1:{server.server_port}/", timeout=30)
        server.shutdown()
    assert answer.status_code == 200 and answer.text == "<p>one<p>two"
    # The authorities that it trusts are those of the image.
    assert Path(requests.certs.where()).read_text().count("BEGIN CERTIFICATE") > 50


@check
def bs4():
    import bs4

    for parser in ("html.parser", "lxml", "html5lib"):
        assert [each.text for each in bs4.BeautifulSoup("<p>one<p>two", parser)("p")][1] == "two", parser


@check
def lxml():
    from lxml import etree

    tree = etree.fromstring("<a><b c='1'>x</b><b c='2'>y</b></a>")
    assert tree.xpath("//b[@c='2']/text()") == ["y"]
    sheet = "<s:stylesheet version='1.0' xmlns:s='http://www.w3.org/1999/XSL/Transform'><s:template match='/'>"
    style = etree.XSLT(etree.fromstring(f"{sheet}<r><s:value-of select='count(//b)'/></r></s:template></s:stylesheet>"))
    assert style(tree).getroot().text == "2"


@check
def reportlab():
    import pypdf
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.platypus import Image, Paragraph, SimpleDocTemplate, Table

    style = getSampleStyleSheet()["Title"]
    SimpleDocTemplate("report.pdf").build([Paragraph("A report", style), Table([["a", "1"]]), Image("figure.png", 200, 150)])
    page = pypdf.PdfReader("report.pdf").pages[0]
    assert "A report" in page.extract_text() and len(page.images) == 1


@check
def pypdf():
    import pypdf

    with pypdf.PdfWriter() as writer:
        writer.append("report.pdf")
        writer.append("figure.pdf")
        writer.encrypt("secret", algorithm="RC4-128")
        writer.write("both.pdf")
    assert len(pypdf.PdfReader("both.pdf", password="secret").pages) == 2


@check
def docx():
    import docx

    document = docx.Document()
    document.add_heading("A report")
    document.add_picture("figure.png")
    document.save("report.docx")
    assert docx.Document("report.docx").paragraphs[0].text == "A report"


@check
def yaml():
    import yaml

    assert yaml.load(yaml.safe_dump({"ü": [1, None]}), yaml.CSafeLoader) == {"ü": [1, None]}


@check
def jinja2():
    import jinja2

    assert jinja2.Template("{% for x in l %}{{ x|e }}{% endfor %}").render(l=["<", 1]) == "&lt;1"


@check
def tabulate():
    import pandas

    assert "|   1 |" in pandas.DataFrame({"a": [1]}).to_markdown(index=False)


@check
def tqdm():
    import tqdm

    shown = io.StringIO()
    assert sum(tqdm.tqdm(range(5), file=shown)) == 10 and "5/5" in shown.getvalue()


for each in CHECKS:
    each()
    print(each.__name__, flush=True)
