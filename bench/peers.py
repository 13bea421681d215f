"""peers.py WHAT: the cost of the means of CPython for the same work, as one number on standard output."""
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor


def first_answer(connection):
    connection.send(connection.recv())
    connection.recv()


def spawn():
    """Seconds from the start of a process of the forkserver to its first answer, median."""
    context = multiprocessing.get_context("forkserver")
    times = []
    for turn in range(60):
        start = time.perf_counter()
        near, far = context.Pipe()
        process = context.Process(target=first_answer, args=(far,))
        process.start()
        near.send(1)
        near.recv()
        times.append(time.perf_counter() - start)
        near.send(0)
        process.join()
        near.close()
        far.close()
    return statistics.median(times[10:])


def same(value):
    return value


def mapped(values):
    """Items a second through map with two workers, in chunks of 1000."""
    with ProcessPoolExecutor(2) as pool:
        for _ in pool.map(same, values[:2000], chunksize=1000):
            pass
        start = time.perf_counter()
        count = sum(1 for _ in pool.map(same, values, chunksize=1000))
        return count / (time.perf_counter() - start)


def map_ints():
    return mapped(list(range(1000000, 1200000)))


def map_strings():
    return mapped([f"{number:064d}" for number in range(200000)])


def submit():
    """Calls a second, one by one, all submitted at once."""
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(same, range(100)))
        start = time.perf_counter()
        futures = [pool.submit(same, number) for number in range(20000)]
        for future in futures:
            future.result()
        return len(futures) / (time.perf_counter() - start)


if __name__ == "__main__":
    print({"spawn": spawn, "map_ints": map_ints, "map_strings": map_strings, "submit": submit}[sys.argv[1]]())
