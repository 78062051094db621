"""The frame of a client program: it runs the cases named on its command line and
prints a line of JSON for each."""

import asyncio
import json
import os
import sys
import time
import traceback

import processor
from cases import CASES, Skip
from world import World


def main(sdk):
    """Runs the cases, or a processor that a case started in a process of its own."""
    run = one_processor if sys.argv[1] == "--processor" else all_cases
    failed = asyncio.run(run(sdk, sys.argv[2:] if run is one_processor else sys.argv[1:]))
    sys.stdout.flush()
    # A thread of the SDK that hangs must not keep the program.
    os._exit(1 if failed else 0)


async def one_processor(sdk, args):
    world = World(sdk, os.environ, args[0])
    await processor.alone(world, expiry=float(args[1]))


async def all_cases(sdk, names):
    at_once = asyncio.Semaphore(4)  # they mostly wait, each at a hub of its own

    async def one(name):
        async with at_once:
            started = time.monotonic()
            report = await one_case(sdk, name)
            print("%s: %.1f s" % (name, time.monotonic() - started), file=sys.stderr)
            print(json.dumps({"case": name, **report}), flush=True)
            return not (report.get("ok") or report.get("skip"))
    return sum(await asyncio.gather(*map(one, names)))


async def one_case(sdk, name):
    if name not in CASES:
        return {"ok": False, "detail": "there is no such case"}
    case, limit = CASES[name]
    world = World(sdk, os.environ, os.environ["MILLRACE_HUB"] + name)
    try:
        detail = await asyncio.wait_for(case(world), limit)
        return {"ok": True, "detail": detail or ""}
    except Skip as reason:
        return {"skip": str(reason)}
    except asyncio.TimeoutError:
        traceback.print_exc()
        return {"ok": False, "detail": "not done within %d s" % limit}
    except Exception as e:
        traceback.print_exc()
        return {"ok": False, "detail": "%s: %s" % (type(e).__name__, e)}
    finally:
        try:
            await asyncio.wait_for(world.close(), 20)
        except Exception:
            traceback.print_exc()
