"""How many users each query of a list requests. Pure: no I/O.

Each query sorts the users that remain, so many small pages cost more than a few large ones. The documents disagree on
how many rows a query may return: 10,000 (https://manual.sensorsdata.cn/sa/docs/tech_super_api_query) or about 100,000
(https://manual.sensorsdata.cn/sa/docs/Data_Export_Guide/v0203). So the first page is small. Further pages grow as long
as the server returns all the rows that were requested.
"""

GROWTH = 10
"""Each full page is followed by one of this many times its size. One step leads from 10,000 rows to 100,000."""


class PageSize:
    """The size of the next page.

    Args:
        rows: Size of the first page, which the server is known to return; 0 means all users in one query.
        rows_max: Size of the largest page.
    """

    def __init__(self, rows: int, rows_max: int) -> None:
        self.rows = rows
        """Users that the next query requests."""
        self._first = rows
        self._max = max(rows, rows_max)

    def has_more(self, returned: int, *, missing: bool | None) -> bool:
        """Returns whether another page must be queried, and sets its size.

        A page with fewer rows than requested is the last one, unless users are missing. If that is not known, the
        server may have a maximum between the first page and this one: then another page is queried.

        Args:
            returned: Rows of the last page.
            missing: Whether users are missing; None if their number is not known.
        """
        if not self.rows or returned == 0:
            return False
        if returned >= self.rows:
            self.rows = min(self.rows * GROWTH, self._max)
            return True
        may_be_cut = self.rows > self._first and returned >= self._first
        if may_be_cut:
            self.rows = self._max = returned
        return may_be_cut if missing is None else missing

    def shrink(self) -> bool:
        """Sets the size of the first page, for good; returns False if the pages have that size already."""
        if self.rows <= self._first:
            return False
        self.rows = self._max = self._first
        return True
