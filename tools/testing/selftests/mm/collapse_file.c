// SPDX-License-Identifier: GPL-2.0
/*
 * collapse_file(): what a userfaultfd has to do with it, and collapses that fail.
 *
 * Runs on any kernel with MADV_COLLAPSE and userfaultfd. Where the kernel has more
 * than one implementation, the one in use is tested.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define NR_PAGES	(HUGE / PAGE)
#define RACE_ROUNDS	100
#define RACE_THREADS	3

/* New folios may not be on the LRU yet, so EAGAIN is tried again. */
static int collapse(char *at)
{
	int tries = 20, err;

	do {
		err = madvise(at, HUGE, MADV_COLLAPSE) ? errno : 0;
	} while (err == EAGAIN && --tries && !usleep(50000));
	return err;
}

static char *map_aligned(int fd, off_t offset, int flags)
{
	char *area = mmap(NULL, 2 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = (char *)(((uintptr_t)area + HUGE - 1) & ~(HUGE - 1));

	if (area == MAP_FAILED)
		return NULL;
	at = mmap(at, HUGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, offset);
	return at == MAP_FAILED ? NULL : at;
}

static char pattern(unsigned long page, unsigned long at)
{
	return page * 13 + at * 7 + 1;
}

static void write_page(char *base, unsigned long page)
{
	for (unsigned long at = 0; at < PAGE; at++)
		base[page * PAGE + at] = pattern(page, at);
}

static bool page_is(const char *base, unsigned long page, bool hole)
{
	for (unsigned long at = 0; at < PAGE; at++)
		if (base[page * PAGE + at] != (hole ? 0 : pattern(page, at)))
			return false;
	return true;
}

FIXTURE(collapse_file)
{
	int fd, uffd;
	char *base;
};

FIXTURE_SETUP(collapse_file)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_MINOR_SHMEM,
	};

	self->uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (self->uffd < 0 || ioctl(self->uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd: not root, or not in this kernel");
	self->fd = memfd_create("collapse_file", 0);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(ftruncate(self->fd, 2 * HUGE), 0);
	self->base = map_aligned(self->fd, 0, MAP_SHARED);
	ASSERT_NE(self->base, NULL);
}

FIXTURE_TEARDOWN(collapse_file)
{
	close(self->uffd);
	close(self->fd);
	if (self->base)
		munmap(self->base, HUGE);
}

static void fill(char *base, bool holes)
{
	for (unsigned long page = 0; page < NR_PAGES; page++)
		if (!holes || page % 8)
			write_page(base, page);
}

static int register_range(int uffd, char *at, unsigned long len, int mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)at, .len = len },
		.mode = mode,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? errno : 0;
}

/* Holes are still holes. */
static bool is_sparse(int fd)
{
	for (unsigned long page = 0; page < NR_PAGES; page++) {
		off_t at = page * PAGE;
		bool hole = lseek(fd, at, SEEK_DATA) != at;

		if (hole != !(page % 8))
			return false;
	}
	return true;
}

static bool content_is_right(char *base, bool holes)
{
	for (unsigned long page = 0; page < NR_PAGES; page++)
		if (!page_is(base, page, holes && !(page % 8)))
			return false;
	return true;
}

TEST_F(collapse_file, holes_become_zeroes)
{
	fill(self->base, true);
	EXPECT_EQ(collapse(self->base), 0);
	EXPECT_TRUE(content_is_right(self->base, true));
}

TEST_F(collapse_file, uffd_missing_with_holes_is_busy)
{
	struct stat before, after;

	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, self->base, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	fstat(self->fd, &before);
	EXPECT_EQ(collapse(self->base), EBUSY);
	fstat(self->fd, &after);
	EXPECT_TRUE(is_sparse(self->fd));
	EXPECT_EQ(before.st_blocks, after.st_blocks);

	close(self->uffd);
	EXPECT_EQ(collapse(self->base), 0);
	EXPECT_TRUE(content_is_right(self->base, true));
}

TEST_F(collapse_file, uffd_missing_on_another_mapping_is_busy)
{
	char *alias = map_aligned(self->fd, 0, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_EQ(collapse(self->base), EBUSY);
	EXPECT_TRUE(is_sparse(self->fd));
	munmap(alias, HUGE);
	EXPECT_EQ(collapse(self->base), 0);
}

TEST_F(collapse_file, uffd_missing_on_present_pages_of_the_range_is_busy)
{
	/* By another mapping: this one's VMA has to stay in one piece. */
	char *alias = map_aligned(self->fd, 0, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias + PAGE, PAGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_EQ(collapse(self->base), EBUSY);
	munmap(alias, HUGE);
	EXPECT_TRUE(is_sparse(self->fd));
}

TEST_F(collapse_file, uffd_missing_without_holes_does_not_matter)
{
	fill(self->base, false);
	ASSERT_EQ(register_range(self->uffd, self->base, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_EQ(collapse(self->base), 0);
	EXPECT_TRUE(content_is_right(self->base, false));
}

TEST_F(collapse_file, uffd_minor_with_holes_does_not_matter)
{
	char *alias = map_aligned(self->fd, 0, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MINOR), 0);
	EXPECT_EQ(collapse(self->base), 0);
	munmap(alias, HUGE);
	EXPECT_TRUE(content_is_right(self->base, true));
}

TEST_F(collapse_file, empty_range_is_invalid)
{
	EXPECT_EQ(collapse(self->base), EINVAL);
}

TEST_F(collapse_file, end_of_file_within_the_range_is_invalid)
{
	ASSERT_EQ(ftruncate(self->fd, HUGE / 2), 0);
	ASSERT_EQ(fallocate(self->fd, FALLOC_FL_KEEP_SIZE, 0, HUGE), 0);
	EXPECT_EQ(collapse(self->base), EINVAL);
}

struct race {
	char *base;
	int unexpected;
	bool stop;
};

static void *collapser(void *arg)
{
	struct race *race = arg;

	while (!__atomic_load_n(&race->stop, __ATOMIC_ACQUIRE)) {
		int err = madvise(race->base, HUGE, MADV_COLLAPSE) ? errno : 0;

		if (err && err != EAGAIN && err != EBUSY && err != EINVAL && err != ENOMEM)
			__atomic_store_n(&race->unexpected, err, __ATOMIC_RELEASE);
	}
	return NULL;
}

/*
 * Several collapse one range of which parts are punched, written and touched all
 * the time: folios are locked, off the LRU or referenced by somebody else, so that
 * collapses fail at every stage of gathering. No write may be lost.
 */
TEST_F_TIMEOUT(collapse_file, races_lose_nothing, 300)
{
	struct race race = { .base = self->base };
	pthread_t threads[RACE_THREADS];

	for (int i = 0; i < RACE_THREADS; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, collapser, &race), 0);
	for (int round = 0; round < RACE_ROUNDS; round++) {
		unsigned long first = round * 37 % (NR_PAGES - 64);
		bool right = true;

		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    first * PAGE, 64 * PAGE), 0);
		for (unsigned long page = first; page < first + 64; page += 2)
			write_page(self->base, page);
		for (unsigned long page = first; page < first + 64; page++)
			right = right && page_is(self->base, page, (page - first) % 2);
		EXPECT_TRUE(right);
	}
	__atomic_store_n(&race.stop, true, __ATOMIC_RELEASE);
	for (int i = 0; i < RACE_THREADS; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(race.unexpected, 0);
}

TEST_HARNESS_MAIN
