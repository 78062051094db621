"""Reads captured files with the libraries that people read them with.

A case is LIBRARY:FILE, the latter a name in the folder MILLRACE_FILES. A line of
JSON for each has, as its detail, what the library found: a JSON list of events.
"""

import base64
import hashlib
import json
import os
import sys
import traceback


def typed(value):
    """A value with its type, as text that loses nothing."""
    if value is None:
        return ["null"]
    if isinstance(value, bool):
        return ["boolean", str(value)]
    if isinstance(value, int):
        return ["long", str(value)]
    if isinstance(value, float):
        return ["double", value.hex()]
    if isinstance(value, bytes) and len(value) > 1000:
        return ["bytes of", hashlib.sha256(value).hexdigest()]
    if isinstance(value, bytes):
        return ["bytes", base64.b64encode(value).decode()]
    return ["string", value]


def event(record):
    return {
        "sequence": str(record["SequenceNumber"]),
        "offset": record["Offset"],
        "enqueued": str(record["EnqueuedTimeUtc"]),
        "key": record.get("PartitionKey"),
        "system": {k: typed(v) for k, v in dict(record["SystemProperties"]).items()},
        "properties": {k: typed(v) for k, v in dict(record["Properties"]).items()},
        "body": typed(record["Body"]),
    }


def apache_avro(path):
    from avro.datafile import DataFileReader
    from avro.io import DatumReader

    with DataFileReader(open(path, "rb"), DatumReader()) as reader:
        return [event(r) for r in reader]


def fast_avro(path):
    import fastavro

    with open(path, "rb") as f:
        return [event(r) for r in fastavro.reader(f)]


def sample(path):
    """As the vendor's own sample does: files of 508 bytes or less have no events."""
    return apache_avro(path) if os.path.getsize(path) > 508 else []


def arrow(path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    at = table.schema.get_field_index("EnqueuedTimeUtc")
    assert table.schema.field(at).type == pyarrow.timestamp("ms", tz="UTC"), table.schema
    table = table.set_column(at, "EnqueuedTimeUtc", table.column(at).cast(pyarrow.int64()))
    return [event(r) for r in table.to_pylist()]


def duck(path):
    import duckdb

    result = duckdb.execute(
        "SELECT * REPLACE (epoch_ms(EnqueuedTimeUtc) AS EnqueuedTimeUtc) FROM read_parquet(?)", [path]
    )
    names = [column[0] for column in result.description]
    return [event(dict(zip(names, r))) for r in result.fetchall()]


LIBRARIES = {"avro": apache_avro, "fastavro": fast_avro, "sample": sample, "pyarrow": arrow, "duckdb": duck}


def main():
    for case in sys.argv[1:]:
        library, name = case.split(":")
        try:
            events = LIBRARIES[library](os.path.join(os.environ["MILLRACE_FILES"], name))
            result = {"case": case, "ok": True, "detail": json.dumps(events)}
        except Exception as e:
            traceback.print_exc()
            result = {"case": case, "ok": False, "detail": "%s: %s" % (type(e).__name__, e)}
        print(json.dumps(result), flush=True)


main()
