// SPDX-License-Identifier: GPL-2.0
/*
 * Test the effects of a collapse on a file system and its users. A collapse must not block
 * the file system, use up its space, expose data past the end of a file, or hide an error.
 *
 * The tests run on any kernel, with the implementation in use. Some need
 * collapse_file_inject in debugfs. COLLAPSE_FILE_DIR is a directory for regular files.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collapse_file_util.h"
#include "hugepage_settings.h"
#include "vm_util.h"

FIXTURE(fs)
{
	int pagemap, kpageflags;
};

FIXTURE_SETUP(fs)
{
	self->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_GE(self->pagemap, 0);
	self->kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	ASSERT_GE(self->kpageflags, 0);
}

FIXTURE_TEARDOWN(fs)
{
	inject("off");
	close(self->kpageflags);
	close(self->pagemap);
}

static bool is_locked(int kpageflags, unsigned long pfn)
{
	uint64_t flags = 0;

	pageflags_get(pfn, kpageflags, &flags);
	return flags & 1;	/* KPF_LOCKED */
}

struct punch {
	int fd, err;
};

static void *punch_first_page(void *arg)
{
	struct punch *punch = arg;

	punch->err = fallocate(punch->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) ?
		     errno : 0;
	return NULL;
}

/*
 * A collapse must not hold a folio lock while it reads other folios. Truncation and hole
 * punching wait for folio locks with invalidate_lock held, and reading takes that lock.
 */
TEST_F(fs, no_page_is_locked_while_others_are_read)
{
	struct punch punch = {};
	struct parked *parked;
	pthread_t thread;
	const char *why;
	char *base;
	unsigned long pfn;
	bool locked;
	char byte;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	punch.fd = regular_file(&why);
	if (punch.fd < 0)
		SKIP(return, "%s", why);
	base = map_range(punch.fd, 0, PROT_READ, MAP_SHARED);
	ASSERT_NE(base, NULL);
	ASSERT_EQ(posix_fadvise(punch.fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	ASSERT_EQ(posix_fadvise(punch.fd, 0, 0, POSIX_FADV_RANDOM), 0);
	for (int page = 0; page < 2; page++)
		ASSERT_EQ(pread(punch.fd, &byte, 1, page * PAGE), 1);
	FORCE_READ(base[0]);
	pfn = pagemap_get_pfn(self->pagemap, base);

	parked = collapse_parked(base, "page_cache_sync_ra", "park", 1);
	ASSERT_NE(parked, NULL);
	locked = is_locked(self->kpageflags, pfn);
	EXPECT_FALSE(locked);
	if (!locked) {
		/* This call would hang if the page were locked. */
		ASSERT_EQ(pthread_create(&thread, NULL, punch_first_page, &punch), 0);
		pthread_join(thread, NULL);
		EXPECT_EQ(punch.err, 0);
	}
	collapse_resume(parked);
	for (unsigned long page = 1; page < NR_PAGES; page++)
		ASSERT_TRUE(page_is(base, page, false));
	EXPECT_TRUE(page_is(base, 0, !locked));
	munmap(base, HUGE);
	close(punch.fd);
}

/*
 * A collapse must not hold a folio lock when it starts writeback. Writeback waits for folio
 * locks with a transaction open.
 */
TEST_F(fs, no_page_is_locked_while_others_are_written_back)
{
	struct parked *parked;
	int fd, read_only;
	unsigned long pfn;
	char path[64];
	const char *why;
	char *base;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fd = regular_file(&why);
	if (fd < 0)
		SKIP(return, "%s", why);
	ASSERT_EQ(pwrite(fd, "dirty", 5, 7 * PAGE), 5);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(read_only, 0);
	close(fd);
	base = map_range(read_only, 0, PROT_READ, MAP_SHARED);
	ASSERT_NE(base, NULL);
	FORCE_READ(base[0]);
	pfn = pagemap_get_pfn(self->pagemap, base);

	parked = collapse_parked(base, "filemap_flush", "park", 1);
	ASSERT_NE(parked, NULL);
	EXPECT_FALSE(is_locked(self->kpageflags, pfn));
	collapse_resume(parked);
	EXPECT_TRUE(page_is(base, 0, false));
	munmap(base, HUGE);
	close(read_only);
}

/* A collapse must not consume a writeback error. An O_DIRECT read checks for it first. */
TEST_F(fs, writeback_error_is_reported)
{
	char *page = aligned_alloc(PAGE, PAGE), path[32], *base;
	const char *why;
	int fd, direct;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fd = regular_file(&why);
	if (fd < 0)
		SKIP(return, "%s", why);
	ASSERT_NE(page, NULL);
	base = map_range(fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(base, NULL);
	ASSERT_EQ(pwrite(fd, "lost", 4, 7 * PAGE), 4);
	ASSERT_EQ(inject("submit_bio fail 1 1000"), 0);
	madvise(base, HUGE, MADV_COLLAPSE);
	EXPECT_GT(inject_calls("submit_bio"), 0);
	ASSERT_EQ(inject("off"), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	ASSERT_GE(direct, 0);
	EXPECT_EQ(pread(direct, page, PAGE, 7 * PAGE), -1);
	EXPECT_EQ(errno, EIO);
	close(direct);
	free(page);
	munmap(base, HUGE);
	close(fd);
}

/* Map a shmem file of @ranges ranges, each with one page, aligned for huge pages. */
static char *map_sparse(int ranges, int *fd)
{
	size_t len = ranges * HUGE;
	char *area = mmap(NULL, len + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *base = (char *)(((uintptr_t)area + HUGE - 1) & ~(HUGE - 1));

	*fd = memfd_create("collapse_file", 0);
	if (area == MAP_FAILED || *fd < 0 || ftruncate(*fd, len) ||
	    mmap(base, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, *fd, 0) != base)
		return NULL;
	for (int range = 0; range < ranges; range++)
		write_page(base + range * HUGE, 0);
	return base;
}

/* Return the number of these ranges that a collapse has filled. */
static int filled_ranges(int fd, int ranges)
{
	struct stat stat;

	if (fstat(fd, &stat))
		return -1;
	return (stat.st_blocks * 512 / PAGE - ranges) / (NR_PAGES - 1);
}

TEST_F(fs, killed_task_collapses_no_more_ranges)
{
	int fd, status, go[2];
	char *base, byte;
	pid_t child;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	base = map_sparse(8, &fd);
	ASSERT_NE(base, NULL);
	ASSERT_EQ(pipe(go), 0);
	child = fork();
	ASSERT_GE(child, 0);
	if (!child) {
		if (read(go[0], &byte, 1) == 1)
			madvise(base, 8 * HUGE, MADV_COLLAPSE);
		_exit(0);
	}
	ASSERT_EQ(inject("shmem_charge park 2 1 %d", child), 0);
	ASSERT_EQ(write(go[1], "g", 1), 1);
	ASSERT_TRUE(inject_wait("shmem_charge"));
	ASSERT_EQ(kill(child, SIGKILL), 0);
	ASSERT_EQ(waitpid(child, &status, 0), child);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_LE(filled_ranges(fd, 8), 2);
	close(fd);
}

struct advice {
	char *at;
	int err;
	pid_t tid;
	bool go;
};

static void *collapse_three_ranges(void *arg)
{
	struct advice *advice = arg;

	__atomic_store_n(&advice->tid, gettid(), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&advice->go, __ATOMIC_ACQUIRE))
		usleep(1000);
	advice->err = madvise(advice->at, 3 * HUGE, MADV_COLLAPSE) ? errno : 0;
	return NULL;
}

/* Unmap the last range while the first one is collapsed. */
TEST_F(fs, range_that_is_gone_is_no_success)
{
	struct advice advice = {};
	pthread_t thread;
	int fd;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	advice.at = map_sparse(3, &fd);
	ASSERT_NE(advice.at, NULL);
	ASSERT_EQ(pthread_create(&thread, NULL, collapse_three_ranges, &advice), 0);
	while (!__atomic_load_n(&advice.tid, __ATOMIC_ACQUIRE))
		usleep(1000);
	ASSERT_EQ(inject("shmem_charge park 1 1 %d", advice.tid), 0);
	__atomic_store_n(&advice.go, true, __ATOMIC_RELEASE);
	ASSERT_TRUE(inject_wait("shmem_charge"));
	ASSERT_EQ(munmap(advice.at + 2 * HUGE, HUGE), 0);
	ASSERT_EQ(inject("off"), 0);
	pthread_join(thread, NULL);
	EXPECT_EQ(advice.err, EINVAL);
	EXPECT_EQ(filled_ranges(fd, 3), 2);
	close(fd);
}

TEST_F(fs, busy_range_does_not_keep_the_next_one)
{
	char *base;
	int fd;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	base = map_sparse(2, &fd);
	ASSERT_NE(base, NULL);
	ASSERT_EQ(inject("filemap_release_folio fail 1 1"), 0);
	EXPECT_EQ(madvise(base, 2 * HUGE, MADV_COLLAPSE), -1);
	EXPECT_EQ(errno, EAGAIN);
	ASSERT_EQ(inject("off"), 0);
	EXPECT_EQ(filled_ranges(fd, 2), 1);
	EXPECT_EQ(madvise(base, 2 * HUGE, MADV_COLLAPSE), 0);
	EXPECT_EQ(filled_ranges(fd, 2), 2);
	close(fd);
}

/* The collapse has allocated nodes for the whole range when it charges the holes. */
TEST_F(fs, failed_collapse_leaves_no_nodes)
{
	enum { FILES = 100 };
	char *bases[FILES];
	long before, after;
	int fds[FILES];

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	for (int i = 0; i < FILES; i++) {
		bases[i] = map_sparse(1, &fds[i]);
		ASSERT_NE(bases[i], NULL);
	}
	before = read_number("/proc/slabinfo", "radix_tree_node ");
	if (before < 0)
		SKIP(return, "no slabinfo");
	ASSERT_EQ(inject("shmem_charge fail 1 1000"), 0);
	for (int i = 0; i < FILES; i++)
		EXPECT_NE(collapse(bases[i]).err, 0);
	EXPECT_EQ(inject_calls("shmem_charge"), FILES);
	after = read_number("/proc/slabinfo", "radix_tree_node ");
	/* The page needs two nodes: one for its slot, and its parent. The holes need seven more. */
	EXPECT_LT(after - before, 4 * FILES);
	for (int i = 0; i < FILES; i++)
		close(fds[i]);
}

/* A full tmpfs frees pages past the end of a file. */
TEST_F(fs, space_past_the_end_is_given_back)
{
	char dir[] = "/tmp/collapse_file-XXXXXX", path[64], page[PAGE], *base;
	unsigned long written = 0;
	int small, big;

	ASSERT_NE(mkdtemp(dir), NULL);
	if (mount("none", dir, "tmpfs", 0, "size=4m,huge=never")) {
		rmdir(dir);
		SKIP(return, "no tmpfs can be mounted");
	}
	snprintf(path, sizeof(path), "%s/small", dir);
	small = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	snprintf(path, sizeof(path), "%s/big", dir);
	big = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	ASSERT_GE(small, 0);
	ASSERT_GE(big, 0);
	memset(page, 's', PAGE);
	ASSERT_EQ(pwrite(small, page, PAGE, 0), PAGE);
	base = map_range(small, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(base, NULL);
	ASSERT_EQ(collapse(base).err, 0);
	munmap(base, HUGE);

	while (written < 3 * NR_PAGES / 2 &&
	       pwrite(big, page, PAGE, written * PAGE) == PAGE)
		written++;
	EXPECT_EQ(written, 3 * NR_PAGES / 2);
	ASSERT_EQ(pread(small, page, PAGE, 0), PAGE);
	EXPECT_EQ(page[0], 's');
	EXPECT_EQ(memcmp(page, page + 1, PAGE - 1), 0);
	close(small);
	close(big);
}

/* khugepaged must not count evicted pages of a regular file as swapped-out pages. */
TEST_F(fs, evicted_pages_are_not_swap)
{
	struct thp_settings settings;
	struct sight sight;
	const char *why;
	long before, huge;
	int fd, tries;
	char *base;

	fd = regular_file(&why);
	if (fd < 0)
		SKIP(return, "%s", why);
	base = map_range(fd, 0, PROT_READ, MAP_SHARED);
	ASSERT_NE(base, NULL);
	for (tries = 0; tries < 100; tries++) {
		/* MADV_PAGEOUT reclaims only mapped pages, so map them all. */
		ASSERT_TRUE(content_is_right(base, false));
		madvise(base, HUGE / 2, MADV_PAGEOUT);
		look(fd, base, 0, &sight);
		if (sight.evicted > 64 && sight.cached)
			break;
		usleep(10000);
	}
	if (tries == 100)
		SKIP(return, "no page was evicted");

	before = read_number("/proc/vmstat", "thp_scan_exceed_swap_pte");
	huge = sight.file_huge;
	thp_read_settings(&settings);
	thp_save_settings();
	khugepaged_without_rest(&settings);
	settings.khugepaged.max_ptes_swap = 0;
	ASSERT_EQ(madvise(base, HUGE, MADV_HUGEPAGE), 0);
	thp_push_settings(&settings);
	for (tries = 0; tries < 1000; tries++) {
		look(fd, base, 0, &sight);
		if (sight.file_huge > huge ||
		    read_number("/proc/vmstat", "thp_scan_exceed_swap_pte") > before)
			break;
		usleep(10000);
	}
	thp_restore_settings();
	EXPECT_EQ(read_number("/proc/vmstat", "thp_scan_exceed_swap_pte"), before);
	EXPECT_GT(sight.file_huge, huge);
	EXPECT_TRUE(content_is_right(base, false));
	munmap(base, HUGE);
	close(fd);
}

/* A write past the end clears the rest of the last page. A refused write must not. */
TEST_F(fs, refused_write_changes_nothing)
{
	int fd = memfd_create("collapse_file", MFD_ALLOW_SEALING);
	char *base;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(ftruncate(fd, 100), 0);
	base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(base, MAP_FAILED);
	base[200] = 'x';
	ASSERT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	EXPECT_EQ(pwrite(fd, "y", 1, 300), -1);
	EXPECT_EQ(errno, EPERM);
	EXPECT_EQ(base[200], 'x');
	munmap(base, PAGE);
	close(fd);
}

/* Ways to grow a file. */
static int by_ftruncate(int fd)
{
	return ftruncate(fd, HUGE);
}

static int by_write(int fd)
{
	return pwrite(fd, "end", 4, HUGE - 4) == 4 ? 0 : -1;
}

static int by_fallocate(int fd)
{
	return fallocate(fd, 0, 0, HUGE);
}

FIXTURE(growth)
{
	int fd;
	char *base;
};

FIXTURE_VARIANT(growth)
{
	int (*grow)(int fd);
	bool swapped, split;
};

FIXTURE_VARIANT_ADD(growth, ftruncate) { .grow = by_ftruncate };
FIXTURE_VARIANT_ADD(growth, write) { .grow = by_write };
FIXTURE_VARIANT_ADD(growth, fallocate) { .grow = by_fallocate };
FIXTURE_VARIANT_ADD(growth, swapped) { .grow = by_ftruncate, .swapped = true };
FIXTURE_VARIANT_ADD(growth, split) { .grow = by_ftruncate, .split = true };

FIXTURE_SETUP(growth)
{
	self->fd = memfd_create("collapse_file", 0);
	ASSERT_GE(self->fd, 0);
	self->base = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(self->base, NULL);
}

FIXTURE_TEARDOWN(growth)
{
	munmap(self->base, HUGE);
	close(self->fd);
}

/*
 * Data that was written past the end of a file through a mapping must not appear when the
 * file grows. A huge page can be written to past the last page of the file.
 */
TEST_F(growth, file_grows_by_zeroes)
{
	const unsigned long size = HUGE / 2 - 100, past[] = { size + 50, 300 * PAGE };
	char content[PAGE];
	struct sight sight;

	if (variant->swapped && read_number("/proc/meminfo", "SwapTotal:") <= 0)
		SKIP(return, "no swap space");
	ASSERT_EQ(ftruncate(self->fd, size), 0);
	for (unsigned long page = 0; page < NR_PAGES / 2; page++)
		write_page(self->base, page);
	memset(self->base + size, 0, 100);
	ASSERT_EQ(collapse(self->base).err, 0);
	/* Pages that are reserved past the end survive a split. */
	if (variant->split)
		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_KEEP_SIZE, 0, HUGE), 0);
	/* pread() writes to the mapping, so that a fault is EFAULT and not a signal. */
	for (int i = 0; i < 2; i++)
		pread(self->fd, self->base + past[i], 1, 0);
	if (variant->split)
		ASSERT_EQ(fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    257 * PAGE, PAGE), 0);
	for (int tries = 0; variant->swapped && tries < 40; tries++) {
		ASSERT_EQ(madvise(self->base, HUGE, MADV_PAGEOUT), 0);
		look(self->fd, self->base, 0, &sight);
		if (!sight.cached)
			break;
		usleep(50000);
	}

	ASSERT_EQ(variant->grow(self->fd), 0);
	for (unsigned long page = NR_PAGES / 2 - 1; page < NR_PAGES; page++) {
		unsigned long begin = page == NR_PAGES / 2 - 1 ? PAGE - 100 : 0;

		ASSERT_EQ(pread(self->fd, content, PAGE, page * PAGE), PAGE);
		for (unsigned long i = begin; i < PAGE; i++) {
			if (variant->grow == by_write && page * PAGE + i >= HUGE - 4)
				break;
			ASSERT_EQ(content[i], 0) TH_LOG("byte %lu", page * PAGE + i);
		}
	}
	for (unsigned long page = 0; page < NR_PAGES / 2 - 1; page++)
		ASSERT_TRUE(page_is(self->base, page, false));
}

TEST_HARNESS_MAIN
