// SPDX-License-Identifier: GPL-2.0
/*
 * Test the counts in debugfs' collapse_file_stats (CONFIG_COLLAPSE_FILE_STATS), with the
 * implementation in use. The tests need root and tracefs. No other task may use the file.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "collapse_file_util.h"

#define STATS	"/sys/kernel/debug/collapse_file_stats"

#define THREADS	4
#define ROUNDS	40

FIXTURE(stats)
{
	const char *impl, *other;
	int fd, uffd;
	char *base;
};

static long is_on(void)
{
	return read_number(STATS, "counting ");
}

/* Return the sum of the lines of @impl and @kind, only for @key if set. -1: bad format. */
static long counted(const char *impl, const char *kind, const char *key)
{
	char line[128], of[16], what[16], which[40];
	FILE *file = fopen(STATS, "r");
	long count, sum = 0;

	if (!file)
		return -1;
	if (!fgets(line, sizeof(line), file) || sscanf(line, "counting %ld", &count) != 1)
		sum = -1;
	while (sum >= 0 && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%15s %15s %39s %ld", of, what, which, &count) != 4)
			sum = -1;
		else if (!strcmp(of, impl) && !strcmp(what, kind) && (!key || !strcmp(which, key)))
			sum += count;
	}
	fclose(file);
	return sum;
}

/* Return the number of critical sections of @ns or longer. @ns is a power of two. */
static long counted_from(const char *impl, unsigned long ns)
{
	char key[24];
	long sum = 0;

	for (; ns <= 1UL << 30; ns *= 2) {
		snprintf(key, sizeof(key), "%lu", ns);
		sum += counted(impl, "hold_ns", key);
	}
	return sum;
}

FIXTURE_SETUP(stats)
{
	self->base = NULL;
	self->fd = -1;
	self->uffd = -1;
	if (access(STATS, W_OK))
		SKIP(return, "no collapse_file_stats in debugfs");
	if (!trace_begin())
		SKIP(return, "no tracefs with mm_khugepaged_collapse_file");
	self->uffd = open_uffd();
	if (self->uffd < 0)
		SKIP(return, "no userfaultfd");
	self->impl = implementation();
	ASSERT_NE(self->impl, NULL);
	self->other = strcmp(self->impl, "c") ? "c" : "rust";
	self->fd = memfd_create("collapse_file_stats", 0);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(ftruncate(self->fd, HUGE), 0);
	self->base = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(self->base, NULL);
}

FIXTURE_TEARDOWN(stats)
{
	inject("off");
	trace_end();
	if (self->base) {
		choose_implementation(self->impl);
		write_text(STATS, "0");
		write_text(STATS, "reset");
		munmap(self->base, HUGE);
	}
	close(self->fd);
	close(self->uffd);
}

#define EXPECT_NOTHING(impl)						\
	do {								\
		const char *impl_ = impl;				\
									\
		EXPECT_EQ(counted(impl_, "result", NULL), 0);		\
		EXPECT_EQ(counted(impl_, "hold_ns", NULL), 0);		\
	} while (0)

/* Check for one collapse, and for @holds times that it reached the last critical section. */
#define EXPECT_ONE(impl, result, holds)					\
	do {								\
		const char *who_ = impl;				\
									\
		EXPECT_EQ(counted(who_, "result", result), 1);		\
		EXPECT_EQ(counted(who_, "result", NULL), 1);		\
		EXPECT_EQ(counted(who_, "hold_ns", NULL), holds);	\
		EXPECT_NOTHING(strcmp(who_, "c") ? "c" : "rust");	\
	} while (0)

/* Check that a collapse calls collapse_file() once, with this result. */
#define EXPECT_COLLAPSE(errno_, result_)				\
	do {								\
		struct outcome outcome_ = collapse(self->base);		\
									\
		EXPECT_EQ(outcome_.err, errno_);			\
		EXPECT_EQ(outcome_.events, 1);				\
		EXPECT_STREQ(outcome_.result, result_);			\
	} while (0)

TEST_F(stats, off_at_first)
{
	EXPECT_EQ(is_on(), 0);
	EXPECT_NOTHING("c");
	EXPECT_NOTHING("rust");
	fill(self->base, true);
	EXPECT_COLLAPSE(0, "pte_mapped_hugepage");
	EXPECT_NOTHING("c");
	EXPECT_NOTHING("rust");
}

TEST_F(stats, success_with_holes)
{
	ASSERT_EQ(write_text(STATS, "1"), 0);
	EXPECT_EQ(is_on(), 1);
	fill(self->base, true);
	EXPECT_COLLAPSE(0, "pte_mapped_hugepage");
	EXPECT_ONE(self->impl, "pte_mapped_hugepage", 1);

	/* collapse_file() is not called for a range that is already huge. */
	EXPECT_EQ(collapse(self->base).events, 0);
	EXPECT_ONE(self->impl, "pte_mapped_hugepage", 1);
}

TEST_F(stats, success_without_holes)
{
	ASSERT_EQ(write_text(STATS, "1\n"), 0);
	fill(self->base, false);
	EXPECT_COLLAPSE(0, "pte_mapped_hugepage");
	EXPECT_ONE(self->impl, "pte_mapped_hugepage", 1);
}

TEST_F(stats, refused_in_the_last_hold)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)self->base, .len = HUGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	ASSERT_EQ(write_text(STATS, "1"), 0);
	fill(self->base, true);
	ASSERT_EQ(ioctl(self->uffd, UFFDIO_REGISTER, &reg), 0);
	EXPECT_COLLAPSE(EBUSY, "exceed_none_pte");
	EXPECT_ONE(self->impl, "exceed_none_pte", 1);
}

TEST_F(stats, refused_before_the_last_hold)
{
	ASSERT_EQ(write_text(STATS, "1"), 0);
	EXPECT_COLLAPSE(EINVAL, "truncated");
	EXPECT_ONE(self->impl, "truncated", 0);
}

static bool run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	return !sched_setaffinity(0, sizeof(cpus), &cpus);
}

static long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

/*
 * The time includes the whole last critical section. The collapse stalls there, right before the
 * commit, until the clock has advanced far enough.
 */
TEST_F_TIMEOUT(stats, length_of_the_last_hold, 300)
{
	static const char last[] = "folio_mark_dirty";
	const long long_hold = 1L << 26;
	long length = 0;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	/* The stall ends by itself if this CPU has to wait for the other one. Then try again. */
	for (int tries = 0; tries < 10 && length < long_hold; tries++) {
		struct parked *parked;
		long begun, passed;

		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE),
			  0);
		fill(self->base, true);
		ASSERT_EQ(write_text(STATS, "1"), 0);
		/* Collapse on CPU 1, which stalls with interrupts off. CPU 0 keeps the time. */
		if (!run_on(1))
			SKIP(return, "there is one CPU only");
		parked = collapse_parked(self->base, "shmem_charge", "park", 1);
		ASSERT_TRUE(run_on(0));
		ASSERT_NE(parked, NULL);
		ASSERT_EQ(inject("%s stall 1 1 %d", last, parked_tid(parked)), 0);
		ASSERT_EQ(inject("shmem_charge go"), 0);
		parked_gets_to(parked, last);
		begun = now();
		/* If the task still stalls after @passed was read, it stalled for that long. */
		do {
			usleep(10000);
			passed = now() - begun;
			if (!inject_is_parked(last))
				break;
			length = passed;
		} while (length < long_hold);
		inject("%s go", last);
		EXPECT_EQ(collapse_resume(parked).err, 0);
		EXPECT_ONE(self->impl, "pte_mapped_hugepage", 1);
	}
	EXPECT_GE(length, long_hold);
	EXPECT_EQ(counted_from(self->impl, long_hold), 1);
}

TEST_F(stats, the_other_implementation)
{
	ASSERT_EQ(write_text(STATS, "1"), 0);
	fill(self->base, true);
	ASSERT_TRUE(choose_implementation(self->other));
	EXPECT_COLLAPSE(0, "pte_mapped_hugepage");
	EXPECT_ONE(self->other, "pte_mapped_hugepage", 1);
}

TEST_F(stats, forgotten)
{
	static const char * const words[] = { "reset", "1" };

	ASSERT_EQ(write_text(STATS, "1"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		fill(self->base, true);
		EXPECT_COLLAPSE(0, "pte_mapped_hugepage");
		EXPECT_ONE(self->impl, "pte_mapped_hugepage", 1);
		ASSERT_EQ(write_text(STATS, words[i]), 0);
		EXPECT_EQ(is_on(), 1);
		EXPECT_NOTHING(self->impl);
		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE),
			  0);
	}
}

TEST_F(stats, kept_when_stopped)
{
	ASSERT_EQ(write_text(STATS, "1"), 0);
	fill(self->base, true);
	EXPECT_COLLAPSE(0, "pte_mapped_hugepage");
	ASSERT_EQ(write_text(STATS, "0"), 0);
	EXPECT_EQ(is_on(), 0);
	EXPECT_ONE(self->impl, "pte_mapped_hugepage", 1);

	ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE), 0);
	fill(self->base, true);
	EXPECT_COLLAPSE(0, "pte_mapped_hugepage");
	EXPECT_ONE(self->impl, "pte_mapped_hugepage", 1);
}

TEST_F(stats, other_words)
{
	static const char * const words[] = {
		"\n", "2", "-1", "01", "on", "Reset", "res", "resetting", "1 0",
		"a word that is longer than any command",
	};

	ASSERT_EQ(write_text(STATS, "1"), 0);
	fill(self->base, true);
	EXPECT_COLLAPSE(0, "pte_mapped_hugepage");
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		EXPECT_EQ(write_text(STATS, words[i]), EINVAL) TH_LOG("'%s'", words[i]);
		EXPECT_EQ(is_on(), 1);
		EXPECT_ONE(self->impl, "pte_mapped_hugepage", 1);
	}
}

/* Collapse a private file again and again. Return the number of successful collapses. */
static void *collapser(void *arg)
{
	int fd = memfd_create("collapse_file_stats", 0);
	char *base = NULL;
	long done = 0;

	if (fd >= 0 && !ftruncate(fd, HUGE))
		base = map_range(fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (int round = 0; base && round < ROUNDS; round++) {
		write_page(base, round);
		if (!collapse_once(base).err)
			done++;
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE);
	}
	if (base)
		munmap(base, HUGE);
	close(fd);
	return (void *)done;
}

TEST_F(stats, many_at_a_time)
{
	/* The results that the last critical section determines. */
	static const char * const last[] = {
		"pte_mapped_hugepage", "exceed_none_pte", "page_filled", "store_failed",
	};
	pthread_t threads[THREADS];
	long done = 0, holds = 0;
	void *result;

	/* Do not trace: a thread that reads the trace would consume the events of the others. */
	trace_end();
	ASSERT_EQ(write_text(STATS, "1"), 0);
	for (int i = 0; i < THREADS; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, collapser, NULL), 0);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &result);
		done += (long)result;
	}
	TH_LOG("%ld collapses of %d", done, THREADS * ROUNDS);
	EXPECT_GT(done, 0);
	EXPECT_EQ(counted(self->impl, "result", "pte_mapped_hugepage"), done);
	for (size_t i = 0; i < ARRAY_SIZE(last); i++)
		holds += counted(self->impl, "result", last[i]);
	EXPECT_EQ(counted(self->impl, "hold_ns", NULL), holds);
	EXPECT_NOTHING(self->other);
}

TEST_HARNESS_MAIN
