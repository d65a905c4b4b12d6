"""One image in shared memory, filled by rows in worker processes: nothing is sent back."""

import numpy as np

from parallax import parallel_map, shared_empty

HEIGHT, WIDTH, ROUNDS = 240, 320, 60

image = shared_empty((HEIGHT, WIDTH), np.uint16)
real = np.linspace(-2.2, 0.8, WIDTH)
imaginary = np.linspace(-1.2, 1.2, HEIGHT)


def fill(row):
    """Write one row of the Mandelbrot set in place: rounds until a point leaves."""
    for column in range(WIDTH):
        c = complex(real[column], imaginary[row])
        z = 0j
        rounds = 0
        while abs(z) <= 2 and rounds < ROUNDS:
            z = z * z + c
            rounds += 1
        image[row, column] = rounds


# An ordinary array would stay as it is here: workers would write to their own copies of it.
results = parallel_map(fill, range(HEIGHT))
print("example: shared_image")
print(results.report)
print(f"points inside: {(image == ROUNDS).sum()} of {image.size}")
assert image[HEIGHT // 2, WIDTH // 2] == ROUNDS
assert image[0, 0] < 5
