// SPDX-License-Identifier: GPL-2.0
/*
 * Test collapse_file(): userfaultfd, all kinds of pages that a collapse can replace, failures
 * that must not be observable, and races.
 *
 * The tests run on any kernel with MADV_COLLAPSE and userfaultfd, with the implementation in
 * use. COLLAPSE_FILE_DIR in the environment names a directory on a file system with large
 * folios.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "collapse_file_util.h"
#include "hugepage_settings.h"
#include "vm_util.h"

#define CGROUP		"/sys/fs/cgroup/collapse_file"
#define KPF_LOCKED	BIT_ULL(0)
#define KPF_ACTIVE	BIT_ULL(6)
#define KPF_MLOCKED	BIT_ULL(33)

#define ROUNDS		100
#define RACE_THREADS	3

FIXTURE(collapse_file)
{
	int fd, uffd;
	char *base;
};

FIXTURE_SETUP(collapse_file)
{
	self->base = NULL;
	self->fd = -1;
	self->uffd = open_uffd();
	if (self->uffd < 0)
		SKIP(return, "no userfaultfd: run as root, with CONFIG_USERFAULTFD in the kernel");
	self->fd = memfd_create("collapse_file", MFD_ALLOW_SEALING);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(ftruncate(self->fd, 3 * HUGE), 0);
	self->base = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(self->base, NULL);
}

FIXTURE_TEARDOWN(collapse_file)
{
	inject("off");
	close(self->uffd);
	close(self->fd);
	if (self->base)
		munmap(self->base, HUGE);
}

static int register_range(int uffd, char *at, unsigned long len, int mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)at, .len = len },
		.mode = mode,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? errno : 0;
}

/* Return whether exactly the holes of fill() are holes. */
static bool is_sparse(int fd)
{
	for (unsigned long page = 0; page < NR_PAGES; page++) {
		off_t at = page * PAGE;
		bool hole = lseek(fd, at, SEEK_DATA) != at;

		if (hole != is_hole(page))
			return false;
	}
	return true;
}

/* Return whether a PMD maps the whole range, according to smaps. */
static bool is_huge(char *base)
{
	char line[256], range[32];
	FILE *smaps = fopen("/proc/self/smaps", "r");
	bool here = false;
	long kib = 0;

	if (!smaps)
		return false;
	for (unsigned long page = 0; page < NR_PAGES; page++)
		FORCE_READ(base[page * PAGE]);
	snprintf(range, sizeof(range), "%lx-", (unsigned long)base);
	while (fgets(line, sizeof(line), smaps)) {
		if (strchr(line, '-') && strchr(line, '-') < strchr(line, ' '))
			here = !strncmp(line, range, strlen(range));
		if (here && (!strncmp(line, "ShmemPmdMapped:", 15) ||
			     !strncmp(line, "FilePmdMapped:", 14)))
			kib += strtol(strchr(line, ':') + 1, NULL, 10);
	}
	fclose(smaps);
	return kib == HUGE / 1024;
}

/* Check that a collapse succeeds, that a PMD maps the range, and that the content is right. */
#define EXPECT_COLLAPSE(base, holes)					\
	do {								\
		char *base_ = base;					\
									\
		EXPECT_EQ(collapse(base_).err, 0);			\
		EXPECT_TRUE(content_is_right(base_, holes));		\
		EXPECT_TRUE(is_huge(base_));				\
	} while (0)

/* Check that a collapse fails because of a userfaultfd, and that the holes are still holes. */
#define EXPECT_BUSY(base)						\
	do {								\
		EXPECT_EQ(collapse(base).err, EBUSY);			\
		EXPECT_TRUE(is_sparse(self->fd));			\
	} while (0)

TEST_F(collapse_file, holes_become_zeroes)
{
	fill(self->base, true);
	EXPECT_COLLAPSE(self->base, true);
}

TEST_F(collapse_file, uffd_missing_with_holes_is_busy)
{
	struct sight before, after;

	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, self->base, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	look(self->fd, self->base, 0, &before);
	EXPECT_BUSY(self->base);
	look(self->fd, self->base, 0, &after);
	EXPECT_STREQ(looks_different(&before, &after) ?: "nothing", "nothing");

	close(self->uffd);
	self->uffd = -1;
	EXPECT_COLLAPSE(self->base, true);
}

TEST_F(collapse_file, uffd_missing_on_another_mapping_is_busy)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_BUSY(self->base);
	munmap(alias, HUGE);
	EXPECT_COLLAPSE(self->base, true);
}

/* A collapse that fails leaves pages unmapped, and they must not count as mapped. */
TEST_F(collapse_file, refused_pages_do_not_count_as_mapped)
{
	long before = read_number("/proc/meminfo", "Mapped:");
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, false);
	ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, HUGE - PAGE,
			    PAGE), 0);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_EQ(collapse(self->base).err, EBUSY);
	/* Each CPU may have counts of some pages that it has not added yet. */
	EXPECT_LT(read_number("/proc/meminfo", "Mapped:") - before, (long)(HUGE / 1024 / 2));
	munmap(alias, HUGE);
}

TEST_F(collapse_file, uffd_missing_on_a_private_mapping_is_busy)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_BUSY(self->base);
	munmap(alias, HUGE);
	EXPECT_COLLAPSE(self->base, true);
}

TEST_F(collapse_file, uffd_missing_in_another_process_is_busy)
{
	int ready[2], done[2];
	pid_t child;
	char byte;

	fill(self->base, true);
	ASSERT_EQ(pipe(ready), 0);
	ASSERT_EQ(pipe(done), 0);
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		int uffd = open_uffd();

		byte = register_range(uffd, self->base, HUGE, UFFDIO_REGISTER_MODE_MISSING);
		if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 1)
			_exit(1);
		_exit(0);
	}
	ASSERT_EQ(read(ready[0], &byte, 1), 1);
	ASSERT_EQ(byte, 0);
	EXPECT_BUSY(self->base);
	ASSERT_EQ(write(done[1], &byte, 1), 1);
	waitpid(child, NULL, 0);
	EXPECT_COLLAPSE(self->base, true);
}

TEST_F(collapse_file, uffd_missing_on_present_pages_of_the_range_is_busy)
{
	/* Register another mapping, because the VMA of this one must not be split. */
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias + PAGE, PAGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_BUSY(self->base);
	munmap(alias, HUGE);
}

TEST_F(collapse_file, uffd_missing_on_the_last_page_of_the_range_is_busy)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias + HUGE - PAGE, PAGE,
				 UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_BUSY(self->base);
	munmap(alias, HUGE);
}

/* VMAs that map the file right before and right after the range do not matter. */
TEST_F(collapse_file, uffd_missing_beside_the_range_does_not_matter)
{
	char *before, *behind;

	/* Use the second range of the file. */
	munmap(self->base, HUGE);
	self->base = map_range(self->fd, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	before = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	behind = map_range(self->fd, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(self->base, NULL);
	ASSERT_NE(before, NULL);
	ASSERT_NE(behind, NULL);
	ASSERT_EQ(register_range(self->uffd, before, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);

	fill(self->base, true);
	EXPECT_COLLAPSE(self->base, true);

	ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, HUGE, HUGE), 0);
	ASSERT_EQ(register_range(self->uffd, behind, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	fill(self->base, true);
	EXPECT_COLLAPSE(self->base, true);
	munmap(before, HUGE);
	munmap(behind, HUGE);
}

TEST_F(collapse_file, uffd_missing_without_holes_does_not_matter)
{
	fill(self->base, false);
	ASSERT_EQ(register_range(self->uffd, self->base, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_EQ(collapse(self->base).err, 0);
	EXPECT_TRUE(content_is_right(self->base, false));
}

TEST_F(collapse_file, uffd_minor_with_holes_does_not_matter)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MINOR), 0);
	EXPECT_COLLAPSE(self->base, true);
	munmap(alias, HUGE);
}

TEST_F(collapse_file, uffd_missing_and_minor_with_holes_is_busy)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE,
				 UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR), 0);
	EXPECT_BUSY(self->base);
	munmap(alias, HUGE);
	EXPECT_COLLAPSE(self->base, true);
}

TEST_F(collapse_file, uffd_wp_on_another_mapping_does_not_matter)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	if (register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_WP))
		SKIP(return, "no write protection of shmem by userfaultfd");
	EXPECT_COLLAPSE(self->base, true);
	munmap(alias, HUGE);
}

/* The page cache gets the huge folio, but this mapping must not map it with a PMD. */
TEST_F(collapse_file, uffd_wp_on_the_mapping_itself_is_invalid_but_collapsed)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	if (register_range(self->uffd, self->base, HUGE, UFFDIO_REGISTER_MODE_WP))
		SKIP(return, "no write protection of shmem by userfaultfd");
	EXPECT_EQ(collapse(self->base).err, EINVAL);
	EXPECT_FALSE(is_huge(self->base));
	EXPECT_TRUE(content_is_right(self->base, true));
	EXPECT_EQ(collapse(alias).err, 0);
	EXPECT_TRUE(is_huge(alias));
	munmap(alias, HUGE);
}

static int copy_into(int uffd, char *at, const char *from)
{
	struct uffdio_copy copy = { .dst = (uintptr_t)at, .src = (uintptr_t)from, .len = PAGE };

	return ioctl(uffd, UFFDIO_COPY, &copy) ? errno : 0;
}

static int zero_into(int uffd, char *at)
{
	struct uffdio_zeropage zero = { .range = { .start = (uintptr_t)at, .len = PAGE } };

	return ioctl(uffd, UFFDIO_ZEROPAGE, &zero) ? errno : 0;
}

/* UFFDIO_COPY fills a hole that the collapse has already counted. */
TEST_F(collapse_file, uffdio_copy_meets_a_collapse)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	static char source[PAGE];
	struct parked *parked;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	parked = collapse_parked(self->base, "shmem_charge", "park", 1);
	ASSERT_NE(parked, NULL);
	write_page(source, 0);
	EXPECT_EQ(copy_into(self->uffd, alias + 16 * PAGE, source), 0);
	EXPECT_EQ(zero_into(self->uffd, alias + 24 * PAGE), 0);
	EXPECT_EQ(collapse_resume(parked).err, EAGAIN);
	EXPECT_EQ(memcmp(alias + 16 * PAGE, source, PAGE), 0);
	EXPECT_TRUE(page_is(alias, 24, true));
	EXPECT_EQ(collapse(self->base).err, EBUSY);
	EXPECT_EQ(memcmp(alias + 16 * PAGE, source, PAGE), 0);
	munmap(alias, HUGE);
}

/* A registration during a collapse matters, because its user may have seen the holes. */
TEST_F(collapse_file, uffd_registered_during_a_collapse_is_busy)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct parked *parked;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	parked = collapse_parked(self->base, "shmem_charge", "park", 1);
	ASSERT_NE(parked, NULL);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	EXPECT_EQ(collapse_resume(parked).err, EBUSY);
	EXPECT_TRUE(is_sparse(self->fd));
	munmap(alias, HUGE);
	EXPECT_COLLAPSE(self->base, true);
}

/* A registration that goes away during a collapse does not matter. */
TEST_F(collapse_file, uffd_gone_during_a_collapse_does_not_matter)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct parked *parked;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	parked = collapse_parked(self->base, "shmem_charge", "park", 1);
	ASSERT_NE(parked, NULL);
	munmap(alias, HUGE);
	EXPECT_EQ(collapse_resume(parked).err, 0);
	EXPECT_TRUE(is_huge(self->base));
	EXPECT_TRUE(content_is_right(self->base, true));
}

struct race {
	char *base;
	int unexpected;
	bool stop;
	unsigned int succeeded;
};

static bool stopped(struct race *race)
{
	return __atomic_load_n(&race->stop, __ATOMIC_ACQUIRE);
}

static void stop(struct race *race, pthread_t *threads, int count)
{
	__atomic_store_n(&race->stop, true, __ATOMIC_RELEASE);
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static void *collapser(void *arg)
{
	struct race *race = arg;

	while (!stopped(race)) {
		int err = collapse_once(race->base).err;

		if (!err)
			__atomic_add_fetch(&race->succeeded, 1, __ATOMIC_RELEASE);
		else if (err != EAGAIN && err != EBUSY && err != EINVAL && err != ENOMEM)
			__atomic_store_n(&race->unexpected, err, __ATOMIC_RELEASE);
	}
	return NULL;
}

/*
 * Several threads collapse one range while another one punches, writes and reads it. Folios are
 * locked, off the LRU or referenced, so that collapses fail at every stage before the copy. No
 * write may be lost.
 */
TEST_F_TIMEOUT(collapse_file, races_lose_nothing, 300)
{
	struct race race = { .base = self->base };
	pthread_t threads[RACE_THREADS];

	for (int i = 0; i < RACE_THREADS; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, collapser, &race), 0);
	for (int round = 0; round < ROUNDS; round++) {
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
	stop(&race, threads, RACE_THREADS);
	EXPECT_EQ(race.unexpected, 0);
}

/* UFFDIO_COPY and UFFDIO_ZEROPAGE fill holes while other threads collapse the range. */
TEST_F_TIMEOUT(collapse_file, uffdio_copy_races_lose_nothing, 300)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct race race = { .base = self->base };
	static char source[PAGE];
	pthread_t threads[2];

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	for (int i = 0; i < 2; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, collapser, &race), 0);
	for (unsigned long page = 0; page < NR_PAGES; page += 8) {
		bool zero = page % 16;
		int err, tries = 10000;

		memset(source, page / 8 + 1, PAGE);
		do {
			err = zero ? zero_into(self->uffd, alias + page * PAGE) :
				     copy_into(self->uffd, alias + page * PAGE, source);
		} while (err == EAGAIN && --tries);
		/* A hole is left, so no collapse succeeds, and this page must still be a hole. */
		ASSERT_EQ(err, 0);
		for (unsigned long seen = 0; seen <= page; seen += 8) {
			const char *at = self->base + seen * PAGE;
			char byte = seen % 16 ? 0 : seen / 8 + 1;

			ASSERT_EQ(at[0], byte);
			ASSERT_EQ(memcmp(at, at + 1, PAGE - 1), 0);
		}
		if (page < NR_PAGES - 8)
			EXPECT_EQ(race.succeeded, 0);
	}
	stop(&race, threads, 2);
	EXPECT_EQ(race.unexpected, 0);
	EXPECT_EQ(collapse(self->base).err, 0);
	munmap(alias, HUGE);
}

struct touch {
	char *at;
	bool wait, done;
};

static void *toucher(void *arg)
{
	struct touch *touch = arg;

	while (__atomic_load_n(&touch->wait, __ATOMIC_ACQUIRE))
		sched_yield();
	FORCE_READ(*touch->at);
	__atomic_store_n(&touch->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Return whether an access triggers an event. If it does, resolve the fault with a zero page. */
static bool event_comes(int uffd, char *at)
{
	struct touch touch = { .at = at };
	struct pollfd poller = { .fd = uffd, .events = POLLIN };
	struct uffd_msg message;
	pthread_t thread;
	bool came = false;

	if (pthread_create(&thread, NULL, toucher, &touch))
		return false;
	while (!came && !__atomic_load_n(&touch.done, __ATOMIC_ACQUIRE))
		came = poll(&poller, 1, 10) == 1 &&
		       read(uffd, &message, sizeof(message)) == sizeof(message) &&
		       message.event == UFFD_EVENT_PAGEFAULT;
	if (came)
		while (zero_into(uffd, at) == EAGAIN)
			;
	pthread_join(thread, NULL);
	return came;
}

static void *collapse_some_time(void *arg)
{
	struct race *race = arg;

	if (!collapse(race->base).err)
		race->succeeded++;
	return NULL;
}

/* An access to any page that is missing after the registration triggers an event. */
TEST_F_TIMEOUT(collapse_file, registration_races_lose_no_event, 300)
{
	struct race race = { .base = self->base };
	struct timespec begin, end;
	unsigned int missing = 0;
	long step;

	fill(self->base, true);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	ASSERT_EQ(collapse(self->base).err, 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	/* Scale the delays with the time of a collapse, so that some succeed on any machine. */
	step = ((end.tv_sec - begin.tv_sec) * 1000000 + (end.tv_nsec - begin.tv_nsec) / 1000) / 12;
	if (step < 4000)
		step = 4000;
	for (int round = 0; round < ROUNDS; round++) {
		char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
		unsigned long page = round * 8 % NR_PAGES;
		pthread_t thread;

		ASSERT_NE(alias, NULL);
		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				    HUGE), 0);
		for (unsigned long at = 0; at < NR_PAGES; at++)
			if (!is_hole(at))
				self->base[at * PAGE] = 1;
		ASSERT_EQ(pthread_create(&thread, NULL, collapse_some_time, &race), 0);
		/* Register at a different time in each round. */
		usleep(round % 25 * step);
		ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING),
			  0);
		if (lseek(self->fd, page * PAGE, SEEK_DATA) != (off_t)(page * PAGE)) {
			missing++;
			EXPECT_TRUE(event_comes(self->uffd, alias + page * PAGE));
		}
		pthread_join(thread, NULL);
		munmap(alias, HUGE);
	}
	TH_LOG("%u rounds: %u pages seen missing, %u collapses", ROUNDS, missing, race.succeeded);
	EXPECT_GT(missing, 0);
	EXPECT_GT(race.succeeded, 0);
}

static bool run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	return !sched_setaffinity(0, sizeof(cpus), &cpus);
}

/* Return the CPU time of a thread in ms. */
static long cpu_ms(pthread_t thread)
{
	struct timespec ts = {};
	clockid_t clock;

	if (!pthread_getcpuclockid(thread, &clock))
		clock_gettime(clock, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * A registration right before the commit does not matter, because no hole is visible any more.
 * A thread that touches one waits for the collapse, and does not trigger an event.
 */
TEST_F_TIMEOUT(collapse_file, uffd_registered_too_late_sees_no_holes, 300)
{
	static const char last[] = "folio_mark_dirty";
	bool waited = false;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	munmap(self->base, HUGE);
	self->base = map_range(self->fd, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(self->base, NULL);
	/*
	 * The stalled CPU does not answer IPIs. If another process flushes TLBs, it waits for
	 * that CPU, and this test may wait for the process until the stall ends by itself. It
	 * is then unknown whether the thread waited, and the test tries again.
	 *
	 * A thread that waits spins in the kernel. Its CPU time shows that it has got there,
	 * however slow the machine is.
	 */
	for (int tries = 0; tries < 10 && !waited; tries++) {
		struct pollfd poller = { .fd = self->uffd, .events = POLLIN };
		struct touch touch = { .wait = true };
		struct parked *parked;
		pthread_t thread;
		char *alias;
		long begun;
		bool done;

		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, HUGE,
				    HUGE), 0);
		fill(self->base, true);
		alias = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 0);
		ASSERT_NE(alias, MAP_FAILED);
		touch.at = alias + HUGE + 16 * PAGE;
		/* Collapse on CPU 1, because CPU 0 keeps the time. */
		if (!run_on(1))
			SKIP(return, "there is one CPU only");
		parked = collapse_parked(self->base, "shmem_charge", "park", 1);
		ASSERT_TRUE(run_on(0));
		ASSERT_EQ(pthread_create(&thread, NULL, toucher, &touch), 0);
		ASSERT_NE(parked, NULL);
		ASSERT_EQ(inject("%s stall 1 1 %d", last, parked_tid(parked)), 0);
		ASSERT_EQ(inject("shmem_charge go"), 0);
		parked_gets_to(parked, last);
		EXPECT_EQ(register_range(self->uffd, alias, 2 * HUGE,
					 UFFDIO_REGISTER_MODE_MISSING), 0);
		begun = cpu_ms(thread);
		__atomic_store_n(&touch.wait, false, __ATOMIC_RELEASE);
		do {
			EXPECT_EQ(poll(&poller, 1, 10), 0);
			done = __atomic_load_n(&touch.done, __ATOMIC_ACQUIRE);
			waited = inject_is_parked(last);
			EXPECT_FALSE(waited && done);
		} while (waited && !done && cpu_ms(thread) - begun < 20);
		inject("%s go", last);
		EXPECT_EQ(collapse_resume(parked).err, 0);
		EXPECT_EQ(poll(&poller, 1, 0), 0);
		/* Resume the thread, should it wait for an event nevertheless. */
		close(self->uffd);
		pthread_join(thread, NULL);
		EXPECT_TRUE(content_is_right(self->base, true));
		munmap(alias, 2 * HUGE);
		self->uffd = open_uffd();
		ASSERT_GE(self->uffd, 0);
	}
	EXPECT_TRUE(waited);
}

/*
 * Rust walks the VMAs before it takes the page cache lock. It notices a registration between the
 * walk and the fill of the holes, and the user gets the event.
 */
TEST_F_TIMEOUT(collapse_file, uffd_registered_after_the_walk_is_noticed, 300)
{
	static const char fill_empty[] = "xas_fill_empty";
	bool noticed = false;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	if (!in_rust())
		SKIP(return, "collapse_file() in C walks the VMAs with the lock held");
	/* Try again if the stall ends by itself before the registration. */
	for (int tries = 0; tries < 10 && !noticed; tries++) {
		struct outcome outcome;
		struct parked *parked;
		char *alias;

		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				    HUGE), 0);
		fill(self->base, true);
		alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
		ASSERT_NE(alias, NULL);
		if (!run_on(1))
			SKIP(return, "there is one CPU only");
		parked = collapse_parked(self->base, "shmem_charge", "park", 1);
		ASSERT_TRUE(run_on(0));
		ASSERT_NE(parked, NULL);
		ASSERT_EQ(inject("%s stall 1 1 %d", fill_empty, parked_tid(parked)), 0);
		ASSERT_EQ(inject("shmem_charge go"), 0);
		parked_gets_to(parked, fill_empty);
		EXPECT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
		noticed = inject_is_parked(fill_empty);
		inject("%s go", fill_empty);
		outcome = collapse_resume(parked);
		if (noticed) {
			EXPECT_EQ(outcome.err, EBUSY);
			EXPECT_TRUE(event_comes(self->uffd, alias + 16 * PAGE));
		}
		close(self->uffd);
		EXPECT_TRUE(content_is_right(self->base, true));
		munmap(alias, HUGE);
		self->uffd = open_uffd();
		ASSERT_GE(self->uffd, 0);
	}
	EXPECT_TRUE(noticed);
}

struct writer {
	unsigned long *at;
	unsigned long count;
	bool lost;
	bool stop;
};

static void *keep_counting(void *arg)
{
	struct writer *writer = arg;

	while (!__atomic_load_n(&writer->stop, __ATOMIC_ACQUIRE)) {
		/* The next write would hide that this one was lost. */
		if (__atomic_load_n(writer->at, __ATOMIC_ACQUIRE) != writer->count)
			writer->lost = true;
		__atomic_store_n(writer->at, ++writer->count, __ATOMIC_RELEASE);
	}
	return NULL;
}

/*
 * Let automatic NUMA balancing protect all pages of a range of a memfd. The next access to
 * each page faults. Return NULL, or the reason why that is not possible.
 */
static const char *protect_for_numa_balancing(char *base)
{
	static const char setting[] = "/proc/sys/kernel/numa_balancing";
	static const char counter[] = "numa_pte_updates";
	const int bind_and_balance = 2 | (1 << 13); /* MPOL_BIND | MPOL_F_NUMA_BALANCING */
	unsigned long nodes = 3;
	const char *why = NULL;
	long before;

	if (access(setting, F_OK))
		return "no CONFIG_NUMA_BALANCING";
	if (syscall(__NR_mbind, base, HUGE, bind_and_balance, &nodes, sizeof(nodes) * 8, 0))
		return "there is one node only";
	before = read_number("/proc/vmstat", counter);
	if (write_text(setting, "1"))
		return "NUMA balancing cannot be enabled";
	/* The kernel scans a task that uses a CPU. Reading the counter does that. */
	for (int reads = 0; read_number("/proc/vmstat", counter) < before + (long)NR_PAGES; reads++)
		if (reads == 1000000) {
			why = "NUMA balancing protects no pages";
			break;
		}
	write_text(setting, "0");
	return why;
}

/*
 * Collapse while another thread counts in the first page. A CPU may write to an unmapped
 * page until the TLBs are flushed. A task switch may flush before that, so the collapse is
 * repeated until the thread was seen to count in the unmapped page three times.
 */
static void collapse_while_counting(struct __test_metadata *_metadata, int fd, char *base,
				    bool numa_balancing)
{
	int succeeded = 0, seen = 0;

	for (int tries = 0; tries < 30 && seen < 3; tries++) {
		struct writer writer = { .at = (unsigned long *)base };
		const char *why = NULL;
		struct parked *parked;
		unsigned long before;
		pthread_t thread;
		bool counts;
		int err;

		ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE), 0);
		fill(base, false);
		*writer.at = 0;
		ASSERT_EQ(pthread_create(&thread, NULL, keep_counting, &writer), 0);
		if (numa_balancing)
			why = protect_for_numa_balancing(base);
		if (!why) {
			usleep(50000);
			parked = collapse_parked(base, "try_to_unmap_flush", "park", 1);
			ASSERT_NE(parked, NULL);
			before = __atomic_load_n(&writer.count, __ATOMIC_ACQUIRE);
			usleep(5000);
			counts = __atomic_load_n(&writer.count, __ATOMIC_ACQUIRE) != before;
			err = collapse_resume(parked).err;
		}
		__atomic_store_n(&writer.stop, true, __ATOMIC_RELEASE);
		pthread_join(thread, NULL);
		if (why)
			SKIP(return, "%s", why);
		EXPECT_FALSE(writer.lost);
		EXPECT_EQ(*writer.at, writer.count);
		/* A thread that faults holds a reference. */
		if (err == EAGAIN)
			continue;
		EXPECT_EQ(err, 0);
		EXPECT_TRUE(is_huge(base));
		succeeded++;
		seen += counts;
	}
	EXPECT_GT(succeeded, 0);
	if (succeeded && seen < 3)
		SKIP(return, "the TLBs were flushed early, by task switches");
}

TEST_F_TIMEOUT(collapse_file, writes_before_the_flush_are_copied, 300)
{
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	collapse_while_counting(_metadata, self->fd, self->base, false);
}

/*
 * No CPU can have the protected entries in its TLB. The flush is needed all the same, for
 * the page that the thread writes to.
 */
TEST_F_TIMEOUT(collapse_file, writes_next_to_numa_balancing_are_copied, 300)
{
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	collapse_while_counting(_metadata, self->fd, self->base, true);
}

static void *count_copies(void *arg)
{
	long *copies = arg;

	if (inject_wait("try_to_unmap_flush"))
		*copies = inject_calls(COPY);
	inject("try_to_unmap_flush off");
	return NULL;
}

/* No page is copied before the flush. This test does not depend on the timing of a CPU. */
TEST_F(collapse_file, nothing_is_copied_before_the_flush)
{
	long copies = -1;
	pthread_t thread;
	int err;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	if (!inject_has_copy())
		SKIP(return, "copies cannot be counted on this machine");
	fill(self->base, false);
	ASSERT_EQ(inject("try_to_unmap_flush park"), 0);
	/* Count the calls. There are fewer, so none fails. */
	ASSERT_EQ(inject(COPY " fail 1000000"), 0);
	ASSERT_EQ(pthread_create(&thread, NULL, count_copies, &copies), 0);
	err = collapse(self->base).err;
	pthread_join(thread, NULL);
	EXPECT_EQ(err, 0);
	EXPECT_GE(copies, 0);
	/* These are copy-on-write faults, for pages shared with the parent process. */
	EXPECT_LT(copies, 64);
	EXPECT_GE(inject_calls(COPY), NR_PAGES);
}

/* After the commit, and before the collapse has ended, all pages are present. */
TEST_F(collapse_file, success_misses_no_page_under_way)
{
	struct sight before, during;
	struct parked *parked;

	fill(self->base, true);
	if (!inject_available() || inject("retract_page_tables park"))
		SKIP(return, "no collapse_file_inject for retract_page_tables");
	inject("off");
	look(self->fd, self->base, 0, &before);
	parked = collapse_parked(self->base, "retract_page_tables", "park", 1);
	ASSERT_NE(parked, NULL);
	look(self->fd, self->base, 0, &during);
	EXPECT_EQ(during.cached, NR_PAGES);
	for (unsigned long page = 0; page < NR_PAGES; page++) {
		EXPECT_TRUE(during.resident[page]);
		EXPECT_FALSE(during.hole[page]);
	}
	EXPECT_EQ(collapse_resume(parked).err, 0);
	EXPECT_TRUE(content_is_right(self->base, true));
}

struct observer {
	int fd;
	char *base;
	struct sight before;
	bool stop;
	unsigned int looks;
	const char *different;
};

static void *observe(void *arg)
{
	struct observer *observer = arg;
	static char content[HUGE];
	struct sight now;

	while (!__atomic_load_n(&observer->stop, __ATOMIC_ACQUIRE)) {
		look(observer->fd, observer->base, 0, &now);
		/* Charges for the holes may be observable until the collapse has failed. */
		now.blocks = observer->before.blocks;
		now.fs_free = observer->before.fs_free;
		memcpy(now.memcg, observer->before.memcg, sizeof(now.memcg));
		if (!observer->different)
			observer->different = looks_different(&observer->before, &now);
		if (pread(observer->fd, content, HUGE, 0) != HUGE ||
		    !content_is_right(content, true))
			observer->different = "content";
		observer->looks++;
	}
	return NULL;
}

/* A collapse that fails is not observable, not even while it runs. */
TEST_F(collapse_file, failure_is_not_seen_under_way)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct observer observer = { .fd = self->fd, .base = self->base };
	pthread_t thread;

	ASSERT_NE(alias, NULL);
	fill(self->base, true);
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	look(self->fd, self->base, 0, &observer.before);
	ASSERT_EQ(pthread_create(&thread, NULL, observe, &observer), 0);
	for (int tries = 0; tries < 10 || observer.looks < 20; tries++)
		EXPECT_EQ(collapse(self->base).err, EBUSY);
	__atomic_store_n(&observer.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	EXPECT_STREQ(observer.different ?: "nothing", "nothing");
	munmap(alias, HUGE);
}

/* Fill the range in a process that is in CGROUP, so that CGROUP is charged. */
static bool fill_in_cgroup(char *base)
{
	pid_t child;
	int status;

	if (write_text("/sys/fs/cgroup/cgroup.subtree_control", "+memory") ||
	    (mkdir(CGROUP, 0700) && errno != EEXIST))
		return false;
	child = fork();
	if (!child) {
		if (write_text(CGROUP "/cgroup.procs", "0"))
			_exit(1);
		fill(base, true);
		_exit(0);
	}
	return child > 0 && waitpid(child, &status, 0) == child && !status;
}

TEST_F(collapse_file, from_swap)
{
	struct sight sight;

	fill(self->base, true);
	if (read_number("/proc/meminfo", "SwapTotal:") <= 0)
		SKIP(return, "no swap space");
	madvise(self->base, HUGE, MADV_PAGEOUT);
	look(self->fd, self->base, 0, &sight);
	/* A page counts as evicted even while it is still being written to swap. */
	EXPECT_GT(sight.evicted, NR_PAGES / 2);
	EXPECT_COLLAPSE(self->base, true);
}

/* Return the number of pages of the range in the page cache or the swap cache. */
static unsigned long count_resident(int fd, char *base)
{
	unsigned long resident = 0;
	struct sight sight;

	look(fd, base, 0, &sight);
	for (unsigned long page = 0; page < NR_PAGES; page++)
		resident += sight.resident[page];
	return resident;
}

/* Swap the range out, and empty the swap cache. Return whether no page is left. */
static bool swap_out_anew(int fd, char *base)
{
	unsigned long resident = NR_PAGES;

	/* The next attempt frees the pages that this one writes to swap. */
	for (int try = 0; resident && try < 100; try++) {
		write_text(CGROUP "/memory.reclaim", "4M");
		resident = count_resident(fd, base);
	}
	return !resident;
}

/* All pages are read from swap. They are not on the LRU at first. */
TEST_F(collapse_file, from_swap_read_anew)
{
	if (read_number("/proc/meminfo", "SwapTotal:") <= 0)
		SKIP(return, "no swap space");
	if (!fill_in_cgroup(self->base))
		SKIP(return, "no memory cgroups");
	EXPECT_TRUE(swap_out_anew(self->fd, self->base));
	EXPECT_COLLAPSE(self->base, true);
	rmdir(CGROUP);
}

/* Rust starts to read all pages from swap before it waits for the first one. */
TEST_F(collapse_file, swap_is_read_ahead)
{
	unsigned long resident = 0;
	struct parked *parked;
	struct outcome outcome;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	if (!in_rust())
		SKIP(return, "C does not read ahead");
	if (read_number("/proc/meminfo", "SwapTotal:") <= 0)
		SKIP(return, "no swap space");
	if (!fill_in_cgroup(self->base))
		SKIP(return, "no memory cgroups");
	EXPECT_TRUE(swap_out_anew(self->fd, self->base));
	parked = collapse_parked(self->base, "shmem_get_folio", "park", 1);
	ASSERT_NE(parked, NULL);
	/* The reads have been started, and complete while the collapse is parked. */
	for (int try = 0; resident < NR_PAGES / 2 && try < 1000; try++) {
		resident = count_resident(self->fd, self->base);
		usleep(10000);
	}
	EXPECT_GE(resident, NR_PAGES / 2);
	outcome = collapse_resume(parked);
	EXPECT_EQ(outcome.err, 0);
	EXPECT_TRUE(content_is_right(self->base, true));
	rmdir(CGROUP);
}

TEST_F(collapse_file, from_fallocated)
{
	ASSERT_EQ(fallocate(self->fd, FALLOC_FL_KEEP_SIZE, 0, HUGE), 0);
	fill(self->base, true);
	EXPECT_COLLAPSE(self->base, true);
}

/* Return the number of mapped pages from @page on. */
static unsigned long count_mapped(const char *base, unsigned long page)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	unsigned long count = 0;

	for (; page < NR_PAGES; page++)
		count += pagemap_is_populated(pagemap, (char *)base + page * PAGE);
	close(pagemap);
	return count;
}

/*
 * A collapse unmaps the pages of a batch together. If one of them has another user, the pages
 * after it stay mapped, in any number of VMAs.
 */
TEST_F(collapse_file, refused_keeps_later_pages_mapped)
{
	const unsigned long pinned = 200;
	struct iovec page = { .iov_base = self->base + pinned * PAGE, .iov_len = PAGE };
	char *maps[4] = { self->base };
	int ends[2];

	fill(self->base, false);
	ASSERT_EQ(pipe(ends), 0);
	ASSERT_EQ(vmsplice(ends[1], &page, 1, 0), PAGE);
	for (int i = 0; i < 4; i++) {
		if (i)
			maps[i] = map_range(self->fd, 0, PROT_READ, MAP_SHARED);
		ASSERT_NE(maps[i], NULL);
		EXPECT_TRUE(content_is_right(maps[i], false));
		/* Collapse with one VMA, and with all four. */
		if (i && i < 3)
			continue;
		EXPECT_EQ(collapse_once(self->base).err, EAGAIN);
		for (int j = 0; j <= i; j++)
			EXPECT_EQ(count_mapped(maps[j], pinned + 1), NR_PAGES - pinned - 1);
	}
	close(ends[0]);
	close(ends[1]);
	EXPECT_COLLAPSE(self->base, false);
	for (int i = 1; i < 4; i++) {
		EXPECT_TRUE(content_is_right(maps[i], false));
		munmap(maps[i], HUGE);
	}
}

/* Another VMA maps the range at an unaligned address, so that it spans two page tables. */
TEST_F(collapse_file, mapped_across_page_tables)
{
	char *area = mmap(NULL, 3 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *odd;

	ASSERT_NE(area, MAP_FAILED);
	odd = (char *)(((uintptr_t)area + HUGE - 1) & ~(HUGE - 1)) + HUGE / 2;
	odd = mmap(odd, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, self->fd, 0);
	ASSERT_NE(odd, MAP_FAILED);

	/* Only the page tables of @odd map the pages, with dirty bits. */
	fill(odd, true);
	EXPECT_COLLAPSE(self->base, true);
	EXPECT_TRUE(content_is_right(odd, true));
	munmap(area, 3 * HUGE);
}

TEST_F(collapse_file, from_mlocked)
{
	fill(self->base, true);
	ASSERT_EQ(mlock(self->base, HUGE), 0);
	/* mlock() has filled the holes. */
	EXPECT_COLLAPSE(self->base, true);
	ASSERT_EQ(munlock(self->base, HUGE), 0);
}

static unsigned long pfn_of(char *at)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	unsigned long pfn = pagemap_get_pfn(pagemap, at);

	close(pagemap);
	return pfn;
}

static bool pfn_has_flag(unsigned long pfn, uint64_t mask)
{
	int kpageflags = open("/proc/kpageflags", O_RDONLY);
	uint64_t flags = 0;

	pageflags_get(pfn, kpageflags, &flags);
	close(kpageflags);
	return flags & mask;
}

static bool has_flag(char *at, uint64_t mask)
{
	return pfn_has_flag(pfn_of(at), mask);
}

/* Two ranges that one call collapses, in a thread on another CPU. */
struct two_ranges {
	char *base;
	bool done;
	int err;
};

static void *collapse_two_ranges(void *arg)
{
	struct two_ranges *two = arg;

	two->err = -1;
	if (run_on(0)) {
		inject("filemap_release_folio park");
		two->err = madvise(two->base, 2 * HUGE, MADV_COLLAPSE) ? errno : 0;
	}
	__atomic_store_n(&two->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * Pages that another CPU has just added are in its LRU batch, which holds a reference to each.
 * madvise() drains the batches before the first range. The scan of a later range drains them
 * again.
 */
TEST_F(collapse_file, scan_drains_lru_batches)
{
	const unsigned long fresh = NR_PAGES - 8;
	struct two_ranges two = {};
	pthread_t thread;
	char *reserved;
	cpu_set_t cpus;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	if (!in_rust())
		SKIP(return, "the scan for the C implementation does not wait");
	if (sched_getaffinity(0, sizeof(cpus), &cpus) || CPU_COUNT(&cpus) < 2)
		SKIP(return, "one CPU");

	reserved = mmap(NULL, 3 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(reserved, MAP_FAILED);
	two.base = (char *)(((uintptr_t)reserved + HUGE - 1) & ~(HUGE - 1));
	ASSERT_EQ(mmap(two.base, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		       self->fd, 0), two.base);
	fill(two.base, false);
	for (unsigned long page = 0; page < fresh; page++)
		write_page(two.base + HUGE, page);

	ASSERT_TRUE(run_on(1));
	ASSERT_EQ(pthread_create(&thread, NULL, collapse_two_ranges, &two), 0);
	while (!inject_is_parked("filemap_release_folio") &&
	       !__atomic_load_n(&two.done, __ATOMIC_ACQUIRE))
		usleep(1000);
	/* These pages do not fill a batch, so they stay in it. */
	for (unsigned long page = fresh; page < NR_PAGES; page++)
		write_page(two.base + HUGE, page);
	inject("off");
	pthread_join(thread, NULL);

	EXPECT_EQ(two.err, 0);
	EXPECT_TRUE(content_is_right(two.base + HUGE, false));
	ASSERT_EQ(munmap(reserved, 3 * HUGE), 0);
}

/*
 * A page that two processes have mlocked stays mlocked after one of them has unlocked it. A
 * collapse that is refused at an earlier page must not change that.
 */
TEST_F(collapse_file, refused_leaves_later_pages_mlocked)
{
	const unsigned long pinned = 20, later = 25;
	struct iovec page = { .iov_base = self->base + pinned * PAGE, .iov_len = PAGE };
	struct outcome outcome;
	struct parked *parked;
	int ready[2], go[2], ends[2];
	char byte = 0;
	pid_t child;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, false);
	ASSERT_EQ(mlock(self->base, HUGE), 0);
	ASSERT_EQ(pipe(ready) | pipe(go) | pipe(ends), 0);
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		close(go[1]);
		byte = !mlock(self->base, HUGE);
		if (write(ready[1], &byte, 1) == 1 && !read(go[0], &byte, 1))
			munlock(self->base, HUGE);
		_exit(0);
	}
	close(go[0]);
	ASSERT_EQ(read(ready[0], &byte, 1), 1);
	EXPECT_EQ(byte, 1);

	/* Pin the page after the scan, which would refuse it. */
	parked = collapse_parked(self->base, "filemap_release_folio", "park", 10);
	ASSERT_NE(parked, NULL);
	ASSERT_EQ(vmsplice(ends[1], &page, 1, 0), PAGE);
	outcome = collapse_resume(parked);
	EXPECT_EQ(outcome.err, EAGAIN);
	EXPECT_TRUE(has_flag(self->base + later * PAGE, KPF_MLOCKED));

	close(go[1]);
	ASSERT_EQ(waitpid(child, NULL, 0), child);
	/* The call drains the batches of all CPUs. An munlock() may be pending in one. */
	EXPECT_EQ(collapse_once(self->base).err, EAGAIN);
	EXPECT_TRUE(has_flag(self->base + later * PAGE, KPF_MLOCKED));

	close(ready[0]);
	close(ready[1]);
	close(ends[0]);
	close(ends[1]);
	EXPECT_COLLAPSE(self->base, false);
	ASSERT_EQ(munlock(self->base, HUGE), 0);
}

/* A CPU may write to an unmapped page through its TLB, so the page stays locked until the flush. */
TEST_F(collapse_file, refused_page_is_locked_until_the_flush)
{
	const unsigned long pinned = 20;
	struct iovec page = { .iov_base = self->base + pinned * PAGE, .iov_len = PAGE };
	struct parked *parked;
	unsigned long pfn;
	int ends[2];

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, false);
	ASSERT_EQ(pipe(ends), 0);
	pfn = pfn_of(page.iov_base);
	/* Pin the page after the scan, which would refuse it. */
	parked = collapse_parked(self->base, "filemap_release_folio", "park", 10);
	ASSERT_NE(parked, NULL);
	ASSERT_EQ(vmsplice(ends[1], &page, 1, 0), PAGE);
	ASSERT_EQ(inject("try_to_unmap_flush park 1 1 %d", parked_tid(parked)), 0);
	ASSERT_EQ(inject("filemap_release_folio off"), 0);
	ASSERT_TRUE(parked_gets_to(parked, "try_to_unmap_flush"));
	EXPECT_TRUE(pfn_has_flag(pfn, KPF_LOCKED));
	ASSERT_EQ(inject("try_to_unmap_flush off"), 0);
	EXPECT_EQ(collapse_resume(parked).err, EAGAIN);
	EXPECT_FALSE(pfn_has_flag(pfn, KPF_LOCKED));

	close(ends[0]);
	close(ends[1]);
	EXPECT_COLLAPSE(self->base, false);
}

static bool lru_is_multi_gen(void)
{
	long caps = read_number("/sys/kernel/mm/lru_gen/enabled", "0x");

	return caps > 0 && caps & 1;
}

/* The collapse must clear the LRU flags of the old folios, because a free page has none. */
TEST_F(collapse_file, from_active)
{
	static char content[HUGE];
	bool active = false;

	fill(self->base, true);
	if (lru_is_multi_gen()) {
		unsigned long pfn = pfn_of(self->base + PAGE);
		struct parked *parked;

		/* A folio of a young generation has the flag only while it is isolated. */
		if (!inject_available())
			SKIP(return, "no collapse_file_inject in debugfs");
		EXPECT_FALSE(pfn_has_flag(pfn, KPF_ACTIVE));
		parked = collapse_parked(self->base, "shmem_charge", "park", 1);
		ASSERT_NE(parked, NULL);
		EXPECT_TRUE(pfn_has_flag(pfn, KPF_ACTIVE));
		EXPECT_EQ(collapse_resume(parked).err, 0);
		EXPECT_TRUE(content_is_right(self->base, true));
		EXPECT_TRUE(is_huge(self->base));
		return;
	}
	/* A page becomes active after several reads, when the LRU batches are drained. */
	for (int tries = 0; tries < 20 && !active; tries++) {
		ASSERT_EQ(pread(self->fd, content, HUGE, 0), HUGE);
		active = has_flag(self->base + PAGE, KPF_ACTIVE);
	}
	EXPECT_TRUE(active);
	EXPECT_COLLAPSE(self->base, true);
}

TEST_F(collapse_file, from_sealed)
{
	fill(self->base, true);
	munmap(self->base, HUGE);
	ASSERT_EQ(fcntl(self->fd, F_ADD_SEALS,
			F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
	self->base = map_range(self->fd, 0, PROT_READ, MAP_SHARED);
	ASSERT_NE(self->base, NULL);
	EXPECT_COLLAPSE(self->base, true);
}

#define THP "/sys/kernel/mm/transparent_hugepage/"

/* Write the setting for shmem folios of @order. */
static bool shmem_order(int order, const char *setting, char *before)
{
	char path[100];

	snprintf(path, sizeof(path), THP "hugepages-%lukB/shmem_enabled", PAGE / 1024 << order);
	return choose_setting(path, setting, before);
}

/* A huge page that was allocated and not cleared yet must not be mapped. */
TEST_F(collapse_file, huge_page_that_nobody_has_written_is_zero)
{
	char before[16] = "never";
	struct stat stat;
	int err;

	if (!choose_setting(THP "shmem_enabled", "always", before))
		SKIP(return, "no huge pages for shmem");
	err = fallocate(self->fd, FALLOC_FL_KEEP_SIZE, 0, PAGE);
	choose_setting(THP "shmem_enabled", before, NULL);
	ASSERT_EQ(err, 0);
	ASSERT_EQ(fstat(self->fd, &stat), 0);
	if ((unsigned long)stat.st_blocks != HUGE / 512)
		SKIP(return, "no huge page was available");
	/* It does not matter whether this succeeds. */
	madvise(self->base, HUGE, MADV_COLLAPSE);
	for (unsigned long page = 0; page < NR_PAGES; page++) {
		ASSERT_TRUE(page_is(self->base, page, true))
			TH_LOG("page %lu is not zero", page);
	}
	fill(self->base, true);
	EXPECT_TRUE(content_is_right(self->base, true));
	EXPECT_EQ(madvise(self->base, HUGE, MADV_COLLAPSE), 0);
}

/* Write pages @first up to, but not including, @end of the range, in folios of @order. */
static bool fill_by_order(char *base, unsigned long first, unsigned long end, int order)
{
	int orders[NR_ORDERS] = {}, pagemap, kpageflags, err;
	char before[16] = "never";

	if (!shmem_order(order, "always", before))
		return false;
	for (unsigned long page = first; page < end; page++)
		write_page(base, page);
	shmem_order(order, before, NULL);
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	kpageflags = open("/proc/kpageflags", O_RDONLY);
	err = gather_folio_orders(base + first * PAGE, (end - first) * PAGE, pagemap, kpageflags,
				  orders, NR_ORDERS);
	close(pagemap);
	close(kpageflags);
	return !err && orders[order] == (int)(end - first) >> order;
}

TEST_F(collapse_file, from_order_2)
{
	ASSERT_TRUE(fill_by_order(self->base, 0, NR_PAGES, 2));
	EXPECT_COLLAPSE(self->base, false);
}

TEST_F(collapse_file, from_order_4)
{
	ASSERT_TRUE(fill_by_order(self->base, 0, NR_PAGES, 4));
	EXPECT_COLLAPSE(self->base, false);
}

TEST_F(collapse_file, from_order_8)
{
	ASSERT_TRUE(fill_by_order(self->base, 0, NR_PAGES, 8));
	EXPECT_COLLAPSE(self->base, false);
}

/* Folios of different orders, swapped-out pages, allocated pages, and holes. */
TEST_F(collapse_file, from_everything)
{
	for (unsigned long page = 0; page < 64; page++)
		write_page(self->base, page);
	madvise(self->base, 64 * PAGE, MADV_PAGEOUT);
	ASSERT_TRUE(fill_by_order(self->base, 64, 128, 2));
	ASSERT_TRUE(fill_by_order(self->base, 128, 256, 4));
	ASSERT_EQ(fallocate(self->fd, FALLOC_FL_KEEP_SIZE, 256 * PAGE, 10 * PAGE), 0);
	for (unsigned long page = 300; page < NR_PAGES; page += 3)
		write_page(self->base, page);
	EXPECT_EQ(collapse(self->base).err, 0);
	EXPECT_TRUE(is_huge(self->base));
	for (unsigned long page = 0; page < NR_PAGES; page++)
		ASSERT_TRUE(page_is(self->base, page, page >= 256 && (page < 300 || page % 3)));
}

/* A failing collapse does not split large folios. */
TEST_F(collapse_file, uffd_missing_with_large_folios_is_busy)
{
	char *alias = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	struct sight before, after;

	ASSERT_NE(alias, NULL);
	ASSERT_TRUE(fill_by_order(self->base, 16, 272, 4));
	ASSERT_EQ(register_range(self->uffd, alias, HUGE, UFFDIO_REGISTER_MODE_MISSING), 0);
	look(self->fd, self->base, 0, &before);
	EXPECT_EQ(collapse(self->base).err, EBUSY);
	look(self->fd, self->base, 0, &after);
	EXPECT_STREQ(looks_different(&before, &after) ?: "nothing", "nothing");
	munmap(alias, HUGE);
	EXPECT_EQ(collapse(self->base).err, 0);
	for (unsigned long page = 0; page < NR_PAGES; page++)
		ASSERT_TRUE(page_is(self->base, page, page < 16 || page >= 272));
}

/* Dirty data is not lost when the huge folio is reclaimed. */
TEST_F(collapse_file, collapsed_can_be_swapped_out)
{
	struct sight sight;

	fill(self->base, true);
	if (read_number("/proc/meminfo", "SwapTotal:") <= 0)
		SKIP(return, "no swap space");
	ASSERT_EQ(collapse(self->base).err, 0);
	/* MADV_PAGEOUT reclaims only mapped pages without other references, so retry. */
	for (int tries = 0; tries < 40; tries++) {
		ASSERT_TRUE(content_is_right(self->base, true));
		ASSERT_EQ(madvise(self->base, HUGE, MADV_PAGEOUT), 0);
		look(self->fd, self->base, 0, &sight);
		if (!sight.cached)
			break;
		usleep(50000);
	}
	EXPECT_EQ(sight.cached, 0);
	EXPECT_TRUE(content_is_right(self->base, true));
}

/* Replace the memfd with a file in COLLAPSE_FILE_DIR. */
static bool on_disk(int *fd, char **base)
{
	static char content[HUGE];
	char path[256];

	if (!getenv("COLLAPSE_FILE_DIR"))
		return false;
	snprintf(path, sizeof(path), "%s/collapse_file", getenv("COLLAPSE_FILE_DIR"));
	munmap(*base, HUGE);
	close(*fd);
	*base = NULL;
	*fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	unlink(path);
	fill(content, false);
	for (unsigned long page = 0; page < NR_PAGES; page++)
		if (pwrite(*fd, content + page * PAGE, PAGE, page * PAGE) != PAGE)
			return false;
	if (fsync(*fd))
		return false;
	*base = map_range(*fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	return *base;
}

TEST_F(collapse_file, from_clean_file)
{
	if (!on_disk(&self->fd, &self->base))
		SKIP(return, "no COLLAPSE_FILE_DIR");
	EXPECT_COLLAPSE(self->base, false);
	/* The file can still be written. */
	write_page(self->base, 3);
	ASSERT_EQ(fsync(self->fd), 0);
	EXPECT_TRUE(content_is_right(self->base, false));
}

TEST_F(collapse_file, from_file_to_be_read)
{
	struct sight sight;

	if (!on_disk(&self->fd, &self->base))
		SKIP(return, "no COLLAPSE_FILE_DIR");
	ASSERT_EQ(posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	/* Read a few scattered pages. The collapse has to read the pages in between. */
	ASSERT_EQ(madvise(self->base, HUGE, MADV_RANDOM), 0);
	for (unsigned long page = 0; page < NR_PAGES; page += 100)
		FORCE_READ(self->base[page * PAGE]);
	look(self->fd, self->base, 0, &sight);
	EXPECT_LT(sight.cached, NR_PAGES);
	EXPECT_COLLAPSE(self->base, false);
}

static long their_stat(const char *key)
{
	return read_number(CGROUP "/memory.stat", key);
}

/* Wait for a value. memory.stat is flushed every two seconds, or after many changes. */
static long soon(long (*stat)(const char *key), const char *key, long expected)
{
	long seen = stat(key);

	for (int tries = 0; tries < 100 && seen != expected; tries++) {
		usleep(100000);
		seen = stat(key);
	}
	return seen;
}

/* A collapse moves the pages of another cgroup from its statistics to those of the caller. */
TEST_F(collapse_file, from_another_cgroup)
{
	long theirs, ours, huge;

	if (!fill_in_cgroup(self->base))
		SKIP(return, "no memory cgroups");
	theirs = (NR_PAGES - NR_PAGES / 8) * PAGE;
	EXPECT_EQ(soon(their_stat, "shmem ", theirs), theirs);
	/* There is no known value to wait for here. */
	sleep(3);
	ours = memory_stat("shmem ");
	huge = memory_stat("shmem_thp ");
	EXPECT_COLLAPSE(self->base, true);
	EXPECT_EQ(soon(their_stat, "shmem ", 0), 0);
	EXPECT_EQ(soon(their_stat, "file ", 0), 0);
	/* The LRU list sizes do not count the old folios any more. */
	EXPECT_EQ(soon(their_stat, "inactive_anon ", 0), 0);
	EXPECT_EQ(soon(their_stat, "active_anon ", 0), 0);
	EXPECT_EQ(soon(memory_stat, "shmem_thp ", huge + HUGE), huge + (long)HUGE);
	/* This cgroup is the parent of the other one, so it has counted its pages before. */
	EXPECT_EQ(soon(memory_stat, "shmem ", ours + HUGE - theirs), ours + (long)HUGE - theirs);
	rmdir(CGROUP);
}

static long node_stat(int node, const char *key)
{
	char path[64];

	write_text("/proc/sys/vm/stat_refresh", "1");
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/vmstat", node);
	return read_number(path, key);
}

static bool bind_to_node(int node)
{
	unsigned long mask = 1UL << node;

	return !syscall(__NR_set_mempolicy, 2 /* MPOL_BIND */, &mask, sizeof(mask) * 8);
}

/* The huge folio is allocated on the node that had most of the pages, and counted there. */
TEST_F(collapse_file, from_two_nodes)
{
	unsigned long first = 100;
	long before[2], cached;

	if (node_stat(1, "nr_shmem ") < 0)
		SKIP(return, "there is one node only");
	ASSERT_TRUE(bind_to_node(0));
	for (unsigned long page = 0; page < first; page++)
		write_page(self->base, page);
	ASSERT_TRUE(bind_to_node(1));
	for (unsigned long page = first; page < NR_PAGES; page++)
		write_page(self->base, page);
	syscall(__NR_set_mempolicy, 0 /* MPOL_DEFAULT */, NULL, 0);
	before[0] = node_stat(0, "nr_shmem ");
	before[1] = node_stat(1, "nr_shmem ");
	cached = node_stat(1, "nr_file_pages ");
	EXPECT_COLLAPSE(self->base, false);
	EXPECT_EQ(node_stat(0, "nr_shmem ") - before[0], -(long)first);
	EXPECT_EQ(node_stat(1, "nr_shmem ") - before[1], (long)first);
	/* Other tasks read files concurrently, but not that many pages. */
	EXPECT_GT(node_stat(1, "nr_file_pages ") - cached, (long)first - 64);
	EXPECT_LT(node_stat(1, "nr_file_pages ") - cached, (long)first + 256);
}

/* Return the number of objects in a slab cache after pending frees, or -1 if unknown. */
static long slab_objects(const char *cache)
{
	char path[64];
	long objects;

	usleep(300000);
	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", cache);
	if (write_text(path, "1"))
		return -1;
	objects = read_number("/proc/slabinfo", cache);
	return objects;
}

static void *make_nodes(void *arg)
{
	char *base = arg;

	if (!inject_wait("xas_nomem"))
		return NULL;
	for (unsigned long page = 0; page < NR_PAGES; page += 16)
		base[page * PAGE] = 1;
	inject("xas_nomem off");
	return NULL;
}

/* A collapse allocates a node, but another task fills the tree first. The node is freed. */
TEST_F(collapse_file, unused_node_is_freed)
{
	const int rounds = 100;
	long before, more;
	pthread_t thread;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	before = slab_objects("radix_tree_node");
	if (before < 0)
		SKIP(return, "no SLUB_DEBUG: objects cannot be counted");
	for (int round = 0; round < rounds; round++) {
		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				    HUGE), 0);
		self->base[PAGE] = 1;
		ASSERT_EQ(inject("xas_nomem park-after"), 0);
		ASSERT_EQ(inject("kmem_cache_alloc_lru_noprof fail"), 0);
		ASSERT_EQ(pthread_create(&thread, NULL, make_nodes, self->base), 0);
		EXPECT_EQ(collapse(self->base).err, 0);
		pthread_join(thread, NULL);
		ASSERT_EQ(inject("off"), 0);
	}
	/* A CPU that was stalled may be late with freeing. */
	for (int tries = 0; tries < 20; tries++) {
		more = slab_objects("radix_tree_node") - before;
		if (more < rounds / 2)
			break;
	}
	EXPECT_LT(more, rounds / 2);
}

/* Make fail-nth count all allocations, without messages, or restore the defaults. */
static void fault_injection(bool all)
{
	static const char * const knobs[] = {
		"failslab/ignore-gfp-wait", "fail_page_alloc/ignore-gfp-wait",
		"fail_page_alloc/ignore-gfp-highmem",
	};
	char path[100];

	for (size_t i = 0; i < sizeof(knobs) / sizeof(*knobs); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s", knobs[i]);
		write_text(path, all ? "N" : "Y");
	}
	write_text("/sys/kernel/debug/fail_page_alloc/min-order", all ? "0" : "1");
	write_text("/sys/kernel/debug/failslab/verbose", all ? "0" : "2");
	write_text("/sys/kernel/debug/fail_page_alloc/verbose", all ? "0" : "2");
}

/*
 * The first allocation of a collapse fails, then the second one of another collapse, and so
 * on. The test ends when a collapse makes fewer allocations than that.
 */
TEST_F_TIMEOUT(collapse_file, each_allocation_fails_once, 300)
{
	unsigned int nth = 0, failures = 0;
	long left;

	if (read_number("/proc/thread-self/fail-nth", "") < 0)
		SKIP(return, "no FAULT_INJECTION");
	do {
		struct sight before, after;
		char text[16];
		int err;

		ASSERT_LT(nth, 1000);
		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				    HUGE), 0);
		/* Most nodes of the XArray are missing in the range. */
		for (unsigned long page = 0; page < 20; page++)
			write_page(self->base, page);
		look(self->fd, self->base, 0, &before);
		fault_injection(true);
		snprintf(text, sizeof(text), "%u", ++nth);
		write_text("/proc/thread-self/fail-nth", text);
		err = madvise(self->base, HUGE, MADV_COLLAPSE) ? errno : 0;
		left = read_number("/proc/thread-self/fail-nth", "");
		write_text("/proc/thread-self/fail-nth", "0");
		fault_injection(false);
		if (err) {
			failures++;
			look(self->fd, self->base, 0, &after);
			EXPECT_STREQ(looks_different(&before, &after) ?: "nothing", "nothing");
			/* Checks before collapse_file() may fail with EAGAIN, without a fault. */
			EXPECT_TRUE(err == ENOMEM || err == EBUSY || err == EINVAL ||
				    err == EAGAIN);
		}
		for (unsigned long page = 0; page < 40; page++)
			ASSERT_TRUE(page_is(self->base, page, page >= 20));
	} while (!left);
	TH_LOG("%u collapses, %u failed", nth, failures);
	EXPECT_GT(failures, 0);
	EXPECT_EQ(collapse(self->base).err, 0);
}

TEST_HARNESS_MAIN
