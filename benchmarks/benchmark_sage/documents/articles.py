"""The text of the generated documents: the same article in six languages."""

from dataclasses import dataclass

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Article:
    """A title, a sentence, two items of a list, a table with a header, and lines of code."""

    language: str
    title: str
    sentence: str
    items: tuple[str, str]
    table: Rows
    code: str = (
        "def area(width, height):\n    if width < 0:\n        return 0\n    return width * height"
    )


ARTICLES = (
    Article(
        "en",
        "Refund policy",
        "Refunds are paid within thirty days of the purchase, without giving reasons.",
        ("Keep the receipt", "Send the goods back"),
        (("city", "office"), ("Leeds", "12 Park Row"), ("York", "3 Mill Lane")),
    ),
    Article(
        "de",
        "Rückgabe",
        "Wir erstatten den Kaufpreis binnen dreißig Tagen, auch für größere Geräte.",
        ("Beleg aufheben", "Ware zurückschicken"),
        (("Ort", "Büro"), ("München", "Türkenstraße 5"), ("Köln", "Am Römerturm 7")),
    ),
    Article(
        "fr",
        "Remboursement",
        "Nous remboursons l’achat sous trente jours, même déjà utilisé à l’étranger.",
        ("Garder le reçu", "Renvoyer l’article"),
        (("ville", "bureau"), ("Orléans", "8 rue Crébillon"), ("Nîmes", "2 allée Jaurès")),
    ),
    Article(
        "ru",
        "Возврат",
        "Мы возвращаем деньги в течение тридцати дней после покупки без объяснений.",
        ("Сохраните чек", "Отправьте товар обратно"),
        (("город", "офис"), ("Казань", "улица Баумана 9"), ("Пермь", "Сибирская 4")),
    ),
    Article(
        "ja",
        "返金について",
        "ご購入から三十日以内であれば、理由を問わず代金を全額お返しいたします。",
        ("領収書を保管する", "商品を送り返す"),
        (("都市", "事務所"), ("京都", "烏丸通二丁目"), ("札幌", "大通西四丁目")),
    ),
    Article(
        "zh",
        "退款政策",
        "自购买之日起三十天内，我们将无条件退还全部货款，运费由本店承担。",
        ("保留收据", "寄回商品"),
        (("城市", "办事处"), ("成都", "天府大道九号"), ("西安", "南大街六号")),
    ),
)
