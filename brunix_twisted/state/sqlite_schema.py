"""
The tables of the state database, and the statements that use them. Pure.

Each write is one statement, and triggers do the rest of it. So no process keeps the write lock while its thread waits
for Python's global lock, which a busy reactor may not release for milliseconds.
"""

from __future__ import annotations

from functools import cache
from typing import Final

APPLICATION_ID: Final = 0x6272756E
"""Marks a file as a state database: "brun"."""
VERSION: Final = 1
"""The version of the tables, in the file's ``user_version``. A gateway does not use a file of a newer version."""

CREATE: Final = f"""
BEGIN IMMEDIATE;

-- `rank` is the order of writing. Unlike a time, it is unique and never goes back.
CREATE TABLE IF NOT EXISTS sessions (
    number INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    holder TEXT,
    written_s REAL NOT NULL,
    rank INTEGER NOT NULL UNIQUE,
    record BLOB NOT NULL
);

-- `rank` is the session's at the last write at which another session had the key too. That orders the sessions of each
-- key correctly: a session that is alone needs no order, and one that joins later was written later. It saves writing
-- all keys of a long conversation again with each turn.
CREATE TABLE IF NOT EXISTS keys (
    key TEXT NOT NULL,
    rank INTEGER NOT NULL,
    session INTEGER NOT NULL,
    PRIMARY KEY (key, rank, session)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS keys_of_session ON keys (session, key);

CREATE TABLE IF NOT EXISTS holders (holder TEXT PRIMARY KEY, seen_s REAL NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS responses (
    number INTEGER PRIMARY KEY,
    response_id TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL,
    caller BLOB NOT NULL,
    stored_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS bodies (number INTEGER PRIMARY KEY, size_bytes INTEGER NOT NULL, body BLOB NOT NULL);

-- Counted here, because counting rows reads all of them.
CREATE TABLE IF NOT EXISTS totals (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    sessions INTEGER NOT NULL,
    responses INTEGER NOT NULL,
    bodies INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0, 0);

CREATE TRIGGER IF NOT EXISTS session_added AFTER INSERT ON sessions BEGIN
    UPDATE totals SET sessions = sessions + 1;
END;
CREATE TRIGGER IF NOT EXISTS session_removed AFTER DELETE ON sessions BEGIN
    DELETE FROM keys WHERE session = OLD.number;
    UPDATE totals SET sessions = sessions - 1;
END;
CREATE TRIGGER IF NOT EXISTS response_added AFTER INSERT ON responses BEGIN
    UPDATE totals SET responses = responses + 1;
END;
CREATE TRIGGER IF NOT EXISTS response_removed AFTER DELETE ON responses BEGIN
    DELETE FROM bodies WHERE number = OLD.number;
    UPDATE totals SET responses = responses - 1;
END;
CREATE TRIGGER IF NOT EXISTS body_added AFTER INSERT ON bodies BEGIN
    UPDATE totals SET bodies = bodies + 1, bytes = bytes + NEW.size_bytes;
END;
CREATE TRIGGER IF NOT EXISTS body_removed AFTER DELETE ON bodies BEGIN
    UPDATE totals SET bodies = bodies - 1, bytes = bytes - OLD.size_bytes;
END;

PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""  # noqa: S608 - of constants

OTHER_VERSION: Final = "another version"
"""The error of PUT if the session is at another version than the one that was read."""

# Rows that a write removes because they are too old or too many. More than one, so that a backlog shrinks.
_MAX_REMOVED: Final = 8


def _removals(table: str, order: str, time: str, max_removed: str, prefix: str) -> tuple[str, str]:
    """Return statements that remove the oldest rows of a table, if there are too many and if they are too old."""
    return (
        f"""
    DELETE FROM {table} WHERE number IN (
        SELECT number FROM {table}
        ORDER BY {order} LIMIT max(0, min({max_removed}, (SELECT {table} FROM totals) - {prefix}max_rows))
    );""",  # noqa: S608 - of constants
        f"""
    DELETE FROM {table} WHERE number IN (
        SELECT number FROM (SELECT number, {time} FROM {table} ORDER BY {order} LIMIT {max_removed})
        WHERE {time} < {prefix}oldest_s
    );""",  # noqa: S608 - of constants
    )


# "Functions" of this connection: inserting into such a view runs its trigger. They are not part of the file, so a
# change of them needs no new version.
PREPARE: Final = f"""
CREATE TEMP VIEW put_session AS
    SELECT 0 AS session_id, 0 AS record, 0 AS keys, 0 AS version, 0 AS holder, 0 AS now_s, 0 AS oldest_s, 0 AS max_rows;
CREATE TEMP TRIGGER put_session INSTEAD OF INSERT ON put_session BEGIN
    DELETE FROM sessions WHERE session_id = NEW.session_id AND written_s < NEW.oldest_s;
    SELECT RAISE(ABORT, '{OTHER_VERSION}')
        WHERE NEW.version <> ifnull((SELECT version FROM sessions WHERE session_id = NEW.session_id), 0);
    INSERT INTO sessions (session_id, version, holder, written_s, rank, record) VALUES (
        NEW.session_id, NEW.version + 1, NEW.holder, NEW.now_s, (SELECT ifnull(max(rank), 0) + 1 FROM sessions),
        NEW.record
    )
    ON CONFLICT (session_id) DO UPDATE SET
        version = excluded.version, holder = excluded.holder, written_s = excluded.written_s, rank = excluded.rank,
        record = excluded.record;
    DELETE FROM keys
        WHERE session = (SELECT number FROM sessions WHERE session_id = NEW.session_id)
        AND key NOT IN (SELECT value FROM json_each(NEW.keys));
    UPDATE keys SET rank = (SELECT rank FROM sessions WHERE session_id = NEW.session_id)
        WHERE session = (SELECT number FROM sessions WHERE session_id = NEW.session_id)
        AND EXISTS (SELECT 1 FROM keys AS other WHERE other.key = keys.key AND other.session <> keys.session);
    INSERT OR IGNORE INTO keys
        SELECT value, rank, number FROM sessions, json_each(NEW.keys) WHERE session_id = NEW.session_id;
    {"".join(_removals("sessions", "rank", "written_s", f"{_MAX_REMOVED}", "NEW."))}
END;

CREATE TEMP VIEW put_response AS
    SELECT 0 AS response_id, 0 AS session_id, 0 AS caller, 0 AS body, 0 AS size_bytes, 0 AS now_s, 0 AS oldest_s,
        0 AS max_rows;
CREATE TEMP TRIGGER put_response INSTEAD OF INSERT ON put_response BEGIN
    DELETE FROM responses WHERE response_id = NEW.response_id;
    INSERT INTO responses (response_id, session_id, caller, stored_s)
        VALUES (NEW.response_id, NEW.session_id, NEW.caller, NEW.now_s);
    INSERT INTO bodies
        SELECT number, NEW.size_bytes, NEW.body FROM responses
        WHERE response_id = NEW.response_id AND NEW.body IS NOT NULL;
    {"".join(_removals("responses", "number", "stored_s", f"{_MAX_REMOVED}", "NEW."))}
END;
"""  # noqa: S608 - of constants

_SESSION: Final = """
SELECT session_id, record, version, holder IS NOT NULL AND (
    holder = :holder
    OR EXISTS (SELECT 1 FROM holders WHERE holders.holder = sessions.holder AND seen_s BETWEEN :seen_s AND :ahead_s)
), rank
FROM sessions
"""
MAX_KEYS: Final = 100
"""Maximum number of keys to find with one statement."""


@cache
def find(count: int) -> str:
    """
    Return the statement that finds the sessions with any of ``:key0``, ``:key1`` and so on.

    It has a part for each key: with ``json_each`` it takes half as long again.
    """
    of_key = "SELECT session FROM (SELECT session FROM keys WHERE key = :key{} ORDER BY rank DESC LIMIT :limit)"
    numbers = " UNION ALL ".join(of_key.format(number) for number in range(count))
    return f"{_SESSION} WHERE written_s >= :oldest_s AND number IN ({numbers})"


GET: Final = f"{_SESSION} WHERE written_s >= :oldest_s AND session_id = :session_id"
PUT: Final = """
INSERT INTO put_session VALUES (:session_id, :record, :keys, :version, :holder, :now_s, :oldest_s, :max_rows)
"""
RELEASE: Final = """
UPDATE sessions SET holder = NULL WHERE session_id = :session_id AND version = :version AND holder = :holder
"""

PUT_RESPONSE: Final = """
INSERT INTO put_response
    VALUES (:response_id, :session_id, :caller, :body, :size_bytes, :now_s, :oldest_s, :max_rows)
"""
REMOVE_OLDEST_BODY: Final = """
DELETE FROM bodies
    WHERE number = (SELECT min(number) FROM bodies)
    AND (SELECT bodies > :max_bodies OR bytes > :max_bytes FROM totals)
"""
GET_RESPONSE: Final = """
SELECT session_id, caller, body FROM responses LEFT JOIN bodies USING (number)
    WHERE response_id = :response_id AND stored_s >= :oldest_s
"""
DELETE_RESPONSE: Final = "DELETE FROM responses WHERE response_id = :response_id"

ANNOUNCE: Final = "INSERT INTO holders VALUES (:holder, :now_s) ON CONFLICT DO UPDATE SET seen_s = excluded.seen_s"
FORGET_HOLDER: Final = "DELETE FROM holders WHERE holder = :holder"
FORGET_DEAD_HOLDERS: Final = "DELETE FROM holders WHERE seen_s NOT BETWEEN :seen_s AND :ahead_s"
REMOVE: Final = (
    *_removals("sessions", "rank", "written_s", ":max_removed", ":"),
    *_removals("responses", "number", "stored_s", ":max_removed", ":"),
)
"""Statements that remove what is too old or too much, as far as a write has not done it."""
