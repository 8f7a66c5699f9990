"""A page of a list fits into a message, whatever its rows hold."""

from boardwright.database.listing import Listing, Page

ACCOUNTS = Listing("accounts", "account", {}, descending=False)


async def test_a_page_of_long_rows_is_shorter_and_goes_on_behind_them(database, monkeypatch):
    monkeypatch.setattr("boardwright.database.paging._MOST_CHARACTERS", 1000)
    lengths = [300, 300, 300, 300, 5000, 10, 10]
    await database.write(lambda tx: tx.execute_many(
        "INSERT INTO accounts (account, balance, labels) VALUES (:n, 0, :text)",
        [{"n": str(n), "text": "x" * length} for n, length in enumerate(lengths)],
    ))  # fmt: skip
    pages, token = [], ""
    while not pages or token:
        page = Page(5, token)
        listed, token = await database.read(
            lambda tx, page=page: ACCOUNTS.read(tx, page, lambda row: row["account"], {"balance": 0})
        )
        pages.append("".join(listed))
    assert pages == ["012", "3", "4", "56"]
