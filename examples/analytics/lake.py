"""Captured files as tables: DuckDB over a folder, or over a Blob endpoint."""

import pathlib

import duckdb

QUERIES = sorted((pathlib.Path(__file__).parent / "queries").glob("*.sql"))

# A view of each event hub. The body is bytes in the files: here it is JSON. The
# partition is in the file's name alone.
VIEW = r"""
CREATE VIEW {hub} AS
SELECT regexp_extract(filename, '/{hub}/(\d+)/', 1)::INTEGER AS partition,
       SequenceNumber AS sequence,
       EnqueuedTimeUtc AS enqueued,
       PartitionKey AS key,
       Properties AS properties,
       decode(Body)::JSON AS body
FROM read_parquet('{files}', filename = true)
"""


class Lake:
    """The captured files of some event hubs.

    `location` is a folder, or blob://CONTAINER of the storage account that the
    connection string is of. Names are the default ones, after namespace and hub.
    """

    def __init__(self, location, hubs, namespace="localhost", storage=None):
        self.sql = duckdb.connect()
        # Nothing is downloaded: JSON and Parquet are built in, and fsspec reads blobs.
        self.sql.execute("SET autoinstall_known_extensions = false")
        self.sql.execute("SET TimeZone = 'UTC'")
        if location.startswith("blob://"):
            import adlfs

            self.sql.register_filesystem(adlfs.AzureBlobFileSystem(connection_string=storage))
            root = "abfs://" + location.removeprefix("blob://")
        else:
            root = str(pathlib.Path(location).resolve())
        for hub in hubs:
            files = f"{root}/{namespace}/{hub}/**/*.parquet".replace("'", "''")
            self.sql.execute(VIEW.format(hub=hub, files=files))

    def run(self, query):
        """Runs a file of SQL; the columns' names and the rows."""
        result = self.sql.execute(query.read_text())
        return [column[0] for column in result.description], result.fetchall()

    def answers(self):
        return {query.stem: self.run(query) for query in QUERIES}


def show(query, columns, rows):
    """Prints a query's first comment, and its table."""
    comment = [line.removeprefix("-- ") for line in query.read_text().splitlines() if line.startswith("--")]
    cells = [columns] + [[str(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print("\n" + "\n".join(comment))
    for row in cells:
        print("   " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
