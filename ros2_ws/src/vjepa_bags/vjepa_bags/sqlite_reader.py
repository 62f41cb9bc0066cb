"""Read one SQLite file of a rosbag2 bag of any recorder: its table of messages, row by row within bounds.

A database can act as a program: a view, a computed column or pages in a circle return rows without end. So messages
must lie in an ordinary table, and the size of the file bounds every query.
"""

import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

from vjepa_bags.bag_counts import CDR, message_type
from vjepa_bags.bag_limits import MAX_TOPICS, Allowance, BagLimitError, Meter

LOG = "-wal"
"""Suffix of the name of a database's write-ahead log."""
LEAST_LENGTH = 2**20
"""Bytes of a value or of a statement that even the smallest file may have."""
STEPS = 1000
"""Number of instructions of SQLite's virtual machine between two checks of how many it has executed."""
STEPS_A_MESSAGE = 100

_COLUMNS = {"topics": ("id", "name", "type"), "messages": ("id", "topic_id", "timestamp", "data")}


class SqliteReader:
    """The content of a SQLite file of a bag.

    Attributes:
        path: its path.
        is_whole: whether all of its messages could be listed.
        faults: numbers of faults that are known before its messages are read, by description.
        start_ns: time of its first message.
    """

    def __init__(self, path: Path, allowance: Allowance):
        """Scan the file `path` of a bag with an `allowance`.

        Raises:
            BagLimitError: its tables are not ordinary, or contain more than the file's size allows.
        """
        self.path, self._allowance = path, allowance
        self._log = path.with_name(path.name + LOG).exists()
        self.is_whole = not self._log
        self.faults: Counter[str] = Counter()
        self._topics: dict[int, tuple[str, str, str]] = {}
        self._ids, self._of, self._times = array("q"), array("q"), array("q")
        self._without_topic_or_time = 0
        for damaged in (False, True):
            try:
                with self._opened(damaged) as database:
                    self._check_tables(database)
                    self._list(database, damaged)
                break
            except sqlite3.Error as error:
                self.is_whole, reason = False, str(error)
        else:
            self.faults[f"file '{path.name}' is no database of a bag: nothing of it was read ({reason})"] += 1
        self.start_ns = min(self._times, default=0)
        self._name_unread()

    def _name_unread(self) -> None:
        """Count the messages that are never read: without a topic or a time, or of another encoding."""
        if self._without_topic_or_time:
            self.faults["message without a topic or a time in its row"] += self._without_topic_or_time
        for number, count in Counter(self._of).items():
            if number not in self._topics:
                self.faults[f"message of topic number {number}, which the file does not describe"] += count
            elif (encoding := self._topics[number][2]) not in CDR:
                name = self._topics[number][0]
                self.faults[f"message on {name} encoded as '{encoding:.20}'; expected cdr"] += count

    def topics(self) -> dict[str, Counter[str]]:
        """Return the number of messages of each topic, by their type."""
        counts = Counter(self._of)
        found: dict[str, Counter[str]] = {}
        for number, (name, kind, encoding) in self._topics.items():
            if encoding in CDR:
                found.setdefault(name, Counter())[kind] += counts[number]
        return found

    def messages(self, wanted: Mapping[str, str], faults: Counter[str]) -> Iterator[tuple[str, int, bytes]]:
        """Yield topic, time (ns) and contents of the messages on the topics and of the types `wanted`, by their times.

        An unreadable message is left out and added to `faults`.

        Raises:
            BagLimitError: its messages together are larger than the file.
        """
        names = {n: name for n, (name, kind, form) in self._topics.items() if wanted.get(name) == kind and form in CDR}
        order = [row for row, topic in enumerate(self._of) if topic in names]
        order.sort(key=self._times.__getitem__)
        left = self._allowance.size
        with self._opened(damaged=not self.is_whole) as database:
            for row in order:
                name = names[self._of[row]]
                try:
                    found = database.execute("SELECT data FROM messages WHERE id = ?", (self._ids[row],)).fetchone()
                except sqlite3.Error as error:
                    faults[f"message on {name} lost in a damaged row ({error})"] += 1
                    continue
                if found is None or not isinstance(found[0], bytes):
                    faults[f"message on {name} lost: its row has no bytes"] += 1
                    continue
                left -= len(found[0])
                if left < 0:
                    raise BagLimitError(f"{self.path} has messages that are larger together than the file itself")
                yield name, self._times[row], found[0]

    def _opened(self, damaged: bool) -> closing[sqlite3.Connection]:
        """Return the database, to be closed; if `damaged`, only its whole part is read.

        Nothing is written beside it: the index of a write-ahead log stays in memory, with a lock that has no effect.
        """
        mode = "mode=ro&vfs=unix-none" if self._log else "mode=ro&immutable=1"
        database = sqlite3.connect(f"{self.path.resolve().as_uri()}?{mode}", uri=True)
        length = min(max(LEAST_LENGTH, self._allowance.size), 2**30)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, length)
        steps = STEPS_A_MESSAGE * self._allowance.messages
        taken = 0

        def took() -> bool:
            nonlocal taken
            taken += STEPS
            return taken > steps

        database.set_progress_handler(took, STEPS)
        if self._log:
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("PRAGMA trusted_schema=OFF")
        if damaged:
            database.execute("PRAGMA writable_schema=ON")  # Or SQLite refuses a file shorter than its header states.
        return closing(database)

    def _check_tables(self, database: sqlite3.Connection) -> None:
        """Refuse all but ordinary tables with the columns that a recorder writes."""
        found = database.execute("SELECT name, type, sql FROM sqlite_master WHERE name IN ('messages', 'topics')")
        kinds = {name: (kind, " ".join(str(sql).upper().split())) for name, kind, sql in found.fetchmany(4)}
        for table, expected in _COLUMNS.items():
            kind, sql = kinds.get(table, ("", ""))
            if not kind:
                raise sqlite3.DatabaseError(f"no table '{table}'")
            columns = {row[1]: row for row in database.execute(f"PRAGMA table_xinfo({table})")}
            computed = [name for name, row in columns.items() if row[6]]
            what = ""
            if kind != "table" or not sql.startswith("CREATE TABLE"):
                what = f"a {kind}" if kind != "table" else "a table that a module computes"
            elif computed:
                what = f"a table whose {', '.join(computed)} is computed"
            elif missing := [name for name in expected if name not in columns]:
                what = f"a table without {', '.join(missing)}"
            elif columns["id"][2].upper() != "INTEGER" or not columns["id"][5] or "WITHOUT ROWID" in sql:
                what = "a table whose id is not its key"
            if what:
                raise BagLimitError(f"{self.path}: '{table}' is {what}; expected the table that a recorder writes")

    def _list(self, database: sqlite3.Connection, damaged: bool) -> None:
        self._ids, self._of, self._times = array("q"), array("q"), array("q")
        self._without_topic_or_time = 0
        columns = {row[1] for row in database.execute("PRAGMA table_xinfo(topics)")}
        encoding = "serialization_format" if "serialization_format" in columns else "''"
        for number, name, kind, form in database.execute(f"SELECT id, name, type, {encoding} FROM topics NOT INDEXED"):
            self._topics[number] = str(name), message_type(str(kind)), str(form)
            if len(self._topics) > MAX_TOPICS:
                raise BagLimitError(f"{self.path} has more than {MAX_TOPICS} topics; use fewer topics")
        meter, last = Meter(self._allowance), -(2**63) - 1
        listed = "SELECT id, topic_id, timestamp FROM messages NOT INDEXED"
        try:
            for number, topic, time_ns in database.execute(listed):
                meter.record()
                if number <= last:  # Only if pages lead in a circle.
                    raise sqlite3.DatabaseError(f"message {number} lies behind message {last}")
                last = number
                if type(topic) is int and type(time_ns) is int:
                    self._ids.append(number)
                    self._of.append(topic)
                    self._times.append(time_ns)
                else:
                    self._without_topic_or_time += 1
        except sqlite3.Error:
            self.is_whole = False
            if not damaged:
                raise
