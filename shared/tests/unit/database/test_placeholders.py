from boardwright.database.placeholders import to_pyformat


def test_placeholders_become_pyformat():
    assert to_pyformat("SELECT :a, b FROM t WHERE c = :c_1") == "SELECT %(a)s, b FROM t WHERE c = %(c_1)s"


def test_casts_quotes_and_percent_signs_stay_what_they_are():
    sql = "SELECT x::text, ':no', \"a:b\", 'it''s :no' WHERE y LIKE '%z' AND m % 2 = :n"
    assert to_pyformat(sql) == (
        "SELECT x::text, ':no', \"a:b\", 'it''s :no' WHERE y LIKE '%%z' AND m %% 2 = %(n)s"
    )
