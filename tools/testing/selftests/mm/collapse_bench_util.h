/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by the benchmarks of collapse_file(). They end with an error message if something
 * fails.
 */
#ifndef _COLLAPSE_BENCH_UTIL_H
#define _COLLAPSE_BENCH_UTIL_H

#include <sys/types.h>

#include "kselftest.h"

#define NR_IMPLS	2

extern const char * const impls[NR_IMPLS];

/* The process that die() kills too, if another one calls it. 0: none */
extern pid_t main_pid;
void __noreturn __printf(1, 2) die(const char *format, ...);

/* Write a setting. */
void set(const char *path, const char *text);
/* Return the time in ns. */
long now(void);
void run_on(int cpu);
/* Select an implementation of collapse_file(). */
void use(const char *impl);

#endif
