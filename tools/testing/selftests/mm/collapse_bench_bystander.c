// SPDX-License-Identifier: GPL-2.0
/* Measure the accesses of another CPU during a collapse, for collapse_bench. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <unistd.h>

#include "collapse_bench.h"
#include "collapse_file_util.h"
#include "vm_util.h"

#define MAX_SAMPLES	1000000UL

/*
 * The bystander runs on the other CPU. During a collapse it touches and reads all pages in a
 * scattered order. It uses each page only once: a second read would activate the page, an LRU
 * batch would hold a reference, and the collapse would fail. At a locked page the bystander
 * waits until the collapse has ended. The sample of a collapse is therefore the longest time.
 */
static struct {
	char *alias;
	int fd;
	unsigned long collapse;	/* 0, or attempts * NR_IMPLS + implementation */
	bool stop;
	unsigned int count[NR_IMPLS];	/* collapses during which it used a page */
	long *longest[2][NR_IMPLS];	/* longest time to touch or read a page, for each of them */
} bystander;

static const char * const bystander_names[2] = { "touch", "read" };

static void look_at_page(unsigned long page, int impl)
{
	char *at = bystander.alias + page * PAGE, byte;
	long times[3];

	madvise(at, PAGE, MADV_DONTNEED);
	times[0] = now();
	FORCE_READ(*at);
	times[1] = now();
	if (pread(bystander.fd, &byte, 1, page * PAGE) != 1)
		die("read: %s", strerror(errno));
	times[2] = now();
	for (int i = 0; i < 2; i++) {
		long *longest = &bystander.longest[i][impl][bystander.count[impl] - 1];

		*longest = MAX(*longest, times[i + 1] - times[i]);
	}
}

static void *stand_by(void *unused)
{
	unsigned long seen = 0, page = 0;

	run_on(1);
	while (!__atomic_load_n(&bystander.stop, __ATOMIC_ACQUIRE)) {
		unsigned long collapse = __atomic_load_n(&bystander.collapse, __ATOMIC_ACQUIRE);
		int impl = collapse % NR_IMPLS;

		if (collapse != seen)
			page = 0;
		seen = collapse;
		if (!collapse || page == NR_PAGES)
			continue;
		if (!page && bystander.count[impl] < MAX_SAMPLES)
			bystander.count[impl]++;
		look_at_page(page++ * 197 % NR_PAGES, impl);
	}
	return unused;
}

static void collapse_beside(const struct scenario *s, struct range *r, int impl)
{
	static unsigned long attempts;
	int err = EAGAIN;

	use(impls[impl]);
	/* A collapse fails while the bystander holds a reference, so retry. */
	for (int try = 0; try < 100 && err == EAGAIN; try++) {
		fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE);
		write_pages(s, r);
		usleep(5000);
		attempts++;
		__atomic_store_n(&bystander.collapse, attempts * NR_IMPLS + impl,
				 __ATOMIC_RELEASE);
		err = advise(r);
		__atomic_store_n(&bystander.collapse, 0, __ATOMIC_RELEASE);
	}
	if (err)
		die("bystander, %s: %s", impls[impl], strerror(err));
}

static int compare(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

void run_bystander(const struct scenario *s, long rounds)
{
	pthread_t thread;
	struct range r;

	prepare(s, &r);
	bystander.fd = r.fd;
	bystander.alias = map_range(r.fd, 0, PROT_READ, MAP_SHARED);
	/* With MADV_RANDOM, an unmapped page does not count as accessed. */
	if (!bystander.alias || madvise(bystander.alias, HUGE, MADV_RANDOM))
		die("mmap: %s", strerror(errno));
	for (int i = 0; i < 2 * NR_IMPLS; i++)
		bystander.longest[i / NR_IMPLS][i % NR_IMPLS] = calloc(MAX_SAMPLES, sizeof(long));
	if (pthread_create(&thread, NULL, stand_by, NULL))
		die("cannot create a thread");
	for (long round = 0; round < rounds; round++)
		for (int i = 0; i < NR_IMPLS; i++)
			collapse_beside(s, &r, (i + round) % NR_IMPLS);
	__atomic_store_n(&bystander.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);

	for (int i = 0; i < 2 * NR_IMPLS; i++) {
		unsigned int count = bystander.count[i % NR_IMPLS];
		long *samples = bystander.longest[i / NR_IMPLS][i % NR_IMPLS];

		if (!count)
			die("the bystander saw no collapse");
		qsort(samples, count, sizeof(*samples), compare);
		printf("bystander %s %s %ld %ld %ld %u\n", bystander_names[i / NR_IMPLS],
		       impls[i % NR_IMPLS], samples[count / 2], samples[count * 99 / 100],
		       samples[count - 1], count);
	}
	release(s, &r);
}
