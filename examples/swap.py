"""One program, run with the standard library's pools and with parallax's: one line differs."""

import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

# The guard is for the standard library, where workers may run the script again.
PROGRAM = dedent("""
    from {library} import {pool}
    from concurrent.futures import as_completed
    from hashlib import sha256
    from time import perf_counter

    def digest(number):
        return sha256(b"%d" % number).hexdigest()

    if __name__ == "__main__":
        started = perf_counter()
        with {pool}(2) as executor:
            digests = list(executor.map(digest, range(2000)))
            futures = [executor.submit(digest, number) for number in range(2000)]
            again = {{future.result() for future in as_completed(futures)}}
        assert again == set(digests)
        print(sha256("".join(digests).encode()).hexdigest(), perf_counter() - started)
""")


def run(pool, library, folder):
    script = Path(folder, "program.py")
    script.write_text(PROGRAM.format(pool=pool, library=library), encoding="utf-8")
    output = subprocess.run([sys.executable, script], check=True, stdout=subprocess.PIPE).stdout
    answer, seconds = output.split()
    print(f"from {library + ' import ' + pool:42} {float(seconds) * 1e3:5.0f} ms")
    return answer


print("example: swap")
with tempfile.TemporaryDirectory() as folder:
    for pool in ("ThreadPoolExecutor", "ProcessPoolExecutor"):
        before = run(pool, "concurrent.futures", folder)
        after = run(pool, "parallax", folder)
        assert before == after
