"""A folder with every format and oddity: each file is documents or a dead letter, on both targets.

The hand-checked places are what a person reads when the file is opened in its own program.
"""

from pathlib import Path

import pytest
from minicluster import QUIET, restore_environment, wait_for_workers

from benchmark_sage.documents.articles import ARTICLES
from benchmark_sage.documents.folder import ExpectedDocuments, make_articles
from benchmark_sage.documents.oddities import make_bombs, make_oddities
from benchmark_sage.documents.targets import Reading, in_process, on_minicluster

#: By file or member: words as they stand on the screen.
PLACES = {
    "en/copy 0/report.txt": "Refunds are paid within thirty days of the purchase, without giving",
    "en/copy 0/report.docx": "- Send the goods back\n\n## city\n\n| city | office |",
    "en/copy 0/report.html": "| York | 3 Mill Lane |\n\n```\ndef area(width",
    "en/copy 0/module.py": "    if width < 0:\n        return 0\n    return width * height",
    "en/copy 0/slides.pptx": "## Refund policy\n\n- Keep the receipt\n- Send the",
    "en/copy 0/wide.txt": "* Keep the receipt\n* Send the goods back",
    "de/copy 1/report.md": "# Rückgabe\n\nWir erstatten den Kaufpreis binnen dreißig Tagen",
    "de/copy 1/legacy.txt": "auch für größere Geräte. Beleg aufheben",
    "de/copy 1/table.csv": "| Ort | Büro |\n| --- | --- |\n| München | Türkenstraße 5 |",
    "de/copy 1/settings.json": '  "rules": [\n    "Beleg aufheben",\n    "Ware zur',
    "de/copy 1/letter.eml": "From: Jörg Weiß <joerg@example.org>\nTo: team",
    "fr/copy 2/legacy.txt": "même déjà utilisé à l’étranger. Garder le reçu",
    "fr/copy 2/table.xlsx": "| Orléans | 8 rue Crébillon |\n| Nîmes | 2 allée Jaurès |",
    "fr/copy 2/analysis.ipynb": "# Remboursement\n\nNous remboursons l’achat sous trente jours",
    "fr/copy 2/rows.csv#2": "Garder le reçu",
    "fr/copy 2/bundle.zip!notes.txt": "* Garder le reçu\n* Renvoyer l’article",
    "ru/copy 0/legacy.txt": "в течение тридцати дней после покупки без объяснений.",
    "ru/copy 0/book.epub": "# Возврат\n\nМы возвращаем деньги",
    "ru/copy 0/table.tsv": "| Казань | улица Баумана 9 |",
    "ru/copy 0/items.jsonl#2": "Отправьте товар обратно",
    "ja/copy 1/legacy.txt": "三十日以内であれば、理由を問わず代金を全額お返しいたします。",
    "ja/copy 1/report.md.gz!report.md": "- 領収書を保管する\n- 商品を送り返す",
    "ja/copy 1/bundle.zip!inner.zip!deep/page.html": "| 都市 | 事務所 |\n| --- |",
    "zh/copy 2/legacy.txt": "自购买之日起三十天内，我们将无条件退还全部货款，运费由本店承担。",
    "zh/copy 2/bundle.zip!a/report.docx": "## 城市\n\n| 城市 | 办事处 |\n| --- |",
    "zh/copy 2/slides.pptx": "| 西安 | 南大街六号 |",
    "columns.pdf": "ends in the middle of\na sentence that goes on\nin the second",
    "ligature.pdf": "the first flight example",
    "aes_empty_password.pdf": "Encrypted page",
    "with files.eml!a.docx": "- Beleg aufheben\n- Ware zurückschicken",
    "lines.txt": "one\ntwo\nthree",
}


def require(reading: Reading, expected: ExpectedDocuments) -> None:
    """Every document and dead letter that is expected, and no other."""
    documents = {id_: record.value["text"] for id_, record in reading.documents.items()}
    assert {*documents} == {*expected.documents}
    assert {*reading.failed} == {*expected.failed}
    for id_, words in expected.documents.items():
        assert words in documents[id_], id_
    for id_, words in expected.failed.items():
        assert words in reading.failed[id_], id_


@pytest.mark.slow
def test_every_file_of_a_folder_is_documents_or_a_dead_letter(tmp_path: Path) -> None:
    expected = make_oddities(tmp_path)
    expected.add(make_articles(tmp_path, copies=1, articles=ARTICLES[1:2]))

    require(in_process(tmp_path), expected)


@pytest.fixture
def quiet_minicluster() -> None:
    """Leaves the environment as it was, and waits for the job's threads."""
    yield from restore_environment()
    wait_for_workers()


@pytest.mark.flink
@pytest.mark.timeout(500)
@pytest.mark.usefixtures("quiet_minicluster")
class TestWholeFolder:
    """More than three hundred files; the job may not restart."""

    pytestmark = QUIET

    @pytest.mark.full
    def test_both_targets_read_the_same_documents(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        expected = make_oddities(folder)
        expected.add(make_bombs(folder))
        expected.add(make_articles(folder, copies=3))
        assert sum(1 for path in folder.rglob("*") if not path.is_dir()) >= 300

        here = in_process(folder)
        count = len(here.documents) + len(here.failed)
        flink = on_minicluster(folder, tmp_path, count=count, wait_s=300)

        require(here, expected)
        assert flink == here
        assert len(PLACES) >= 30
        for id_, words in PLACES.items():
            assert words in flink.documents[id_].value["text"], id_
