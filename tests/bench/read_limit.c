// How fast this machine's threads read memory over and over, in GB a second: the bound of anything
// that reads all its weights once a token. Nothing is computed but a sum, so that there is
// something to read for.
//
//     read_limit MEGABYTES SECONDS        (threads: OMP_NUM_THREADS)
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int64_t words = (int64_t)(atof(argv[1]) * 1e6 / sizeof(uint32_t));
  uint32_t* data = malloc(words * sizeof *data);
  if (!data) return 1;
  for (int64_t i = 0; i < words; ++i) data[i] = (uint32_t)i;
  volatile uint32_t sink = 0;
  int64_t passes = 0;
  const double begin = now();
  do {
    uint32_t sum = 0;
#pragma omp parallel for reduction(+ : sum)
    for (int64_t i = 0; i < words; ++i) sum += data[i];
    sink += sum;
    ++passes;
  } while (now() - begin < atof(argv[2]));
  printf("%.3f\n", 1e-9 * (double)(passes * words * (int64_t)sizeof *data) / (now() - begin));
  return 0;
}
