// SPDX-License-Identifier: GPL-2.0
/*
 * Test every result of collapse_file(), with the errno of MADV_COLLAPSE and the index in
 * the trace event. The tests run with the implementation in use.
 *
 * Each case triggers a result and checks that the failure changed nothing observable. It
 * then removes the cause, and the collapse must succeed. The collapse cannot succeed if
 * the failure left a lock, a reference or an entry.
 *
 * All cases need tracefs and root. Most of them need collapse_file_inject in debugfs
 * (CONFIG_COLLAPSE_FILE_INJECT). Two environment variables name directories on file
 * systems with large folios: COLLAPSE_FILE_DIR, and COLLAPSE_FILE_SMALL_BLOCKS_DIR for a
 * file system with blocks smaller than a page.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "collapse_file_util.h"
#include "hugepage_settings.h"
#include "vm_util.h"

/* The range is the second one of its file, so that no index is right by accident. */
#define START		((long)NR_PAGES)
#define END		(2 * START)
#define CGROUP		"/sys/fs/cgroup/collapse_file"

/* The results that the cases reach, and the ways to reach them. */
enum reached {
	ALLOC_HUGE_PAGE_FAIL,
	CGROUP_CHARGE_FAIL,
	NO_NODES,
	TRUNCATED,
	FAIL_GET_FOLIO,
	PAGE_LOCK,
	FAIL_END_OF_FILE,
	PAGE_DIRTY,
	PAGE_WRITEBACK,
	FAIL_NOT_UPTODATE,
	ALREADY_HUGE,
	DEL_PAGE_LRU,
	PAGE_HAS_PRIVATE,
	PAGE_COUNT,
	PAGE_DIRTY_AFTER_UNMAP,
	NOT_IN_MAPPING,
	NO_SPACE,
	COPY_MC,
	STORE_FAILED,
	PAGE_FILLED,
	EXCEED_NONE_PTE,
	SUCCEED,
	PTE_MAPPED_HUGEPAGE,
	NR_REACHED
};

static const char * const names[NR_REACHED] = {
	[ALLOC_HUGE_PAGE_FAIL] = "ALLOC_HUGE_PAGE_FAIL",
	[CGROUP_CHARGE_FAIL] = "CGROUP_CHARGE_FAIL",
	[NO_NODES] = "ALLOC_HUGE_PAGE_FAIL: no memory for nodes",
	[TRUNCATED] = "TRUNCATED: nothing in the range",
	[FAIL_GET_FOLIO] = "FAIL: shmem_get_folio",
	[PAGE_LOCK] = "PAGE_LOCK",
	[FAIL_END_OF_FILE] = "FAIL: beyond the end of the file",
	[PAGE_DIRTY] = "PAGE_DIRTY_OR_WRITEBACK",
	[PAGE_WRITEBACK] = "PAGE_DIRTY_OR_WRITEBACK: writeback",
	[FAIL_NOT_UPTODATE] = "FAIL: not uptodate",
	[ALREADY_HUGE] = "PTE_MAPPED_HUGEPAGE: huge already",
	[DEL_PAGE_LRU] = "DEL_PAGE_LRU",
	[PAGE_HAS_PRIVATE] = "PAGE_HAS_PRIVATE",
	[PAGE_COUNT] = "PAGE_COUNT",
	[PAGE_DIRTY_AFTER_UNMAP] = "PAGE_DIRTY_OR_WRITEBACK: after unmapping",
	[NOT_IN_MAPPING] = "TRUNCATED: not in the mapping",
	[NO_SPACE] = "NO_SPACE",
	[COPY_MC] = "COPY_MC",
	[STORE_FAILED] = "STORE_FAILED",
	[PAGE_FILLED] = "PAGE_FILLED",
	[EXCEED_NONE_PTE] = "EXCEED_NONE_PTE",
	[SUCCEED] = "SUCCEED",
	[PTE_MAPPED_HUGEPAGE] = "PTE_MAPPED_HUGEPAGE: collapsed",
};

/* Shared by the processes in which the harness runs the tests. */
static struct {
	char by[NR_REACHED][40];	/* the case that reached it, or "" */
	int ran;			/* number of cases that were run */
} *board;

static void __attribute__((constructor)) make_board(void)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		     -1, 0);
}

FIXTURE(results)
{
	char dir[32];
	const char *mounted, *path;
	int fd, uffd;
	char *base;
};

static int register_missing(int uffd, char *at)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)at, .len = HUGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? errno : 0;
}

/* Create a file of two ranges and map the second one. The tests use only that one. */
static bool open_file(const char *path, int *fd, char **base)
{
	*fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (*fd < 0 || ftruncate(*fd, 2 * HUGE))
		return false;
	*base = map_range(*fd, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	return *base;
}

FIXTURE_SETUP(results)
{
	char path[64];

	self->fd = -1;
	self->uffd = -1;
	board->ran++;
	if (geteuid())
		SKIP(return, "not root");
	if (!trace_begin())
		SKIP(return, "no tracefs with mm_khugepaged_collapse_file");
	self->uffd = open_uffd();
	if (self->uffd < 0)
		SKIP(return, "no userfaultfd");
	strcpy(self->dir, "/tmp/collapse_file.XXXXXX");
	ASSERT_NE(mkdtemp(self->dir), NULL);
	/* The mount namespace is private, so that the mounts go away with the process. */
	ASSERT_EQ(unshare(CLONE_NEWNS), 0);
	ASSERT_EQ(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	ASSERT_EQ(mount("none", self->dir, "tmpfs", 0, "size=16m,huge=never"), 0);
	snprintf(path, sizeof(path), "%s/file", self->dir);
	ASSERT_TRUE(open_file(path, &self->fd, &self->base));
}

FIXTURE_TEARDOWN(results)
{
	inject("off");
	trace_end();
	if (self->base)
		munmap(self->base, HUGE);
	close(self->fd);
	close(self->uffd);
	if (*self->dir) {
		umount2(self->dir, MNT_DETACH);
		rmdir(self->dir);
	}
}

/* Check the errno of a call, and the result and the index in its trace event. */
#define EXPECT_OUTCOME(what, errno_, result_, index_)			\
	do {								\
		const struct outcome *seen_ = &(what);			\
									\
		EXPECT_EQ(seen_->err, errno_);				\
		EXPECT_STREQ(seen_->result, result_);			\
		EXPECT_EQ(seen_->index, index_);			\
	} while (0)

#define REACHED(what)							\
	do {								\
		enum reached reached_ = what;				\
									\
		if (__test_passed(_metadata))				\
			snprintf(board->by[reached_], sizeof(board->by[0]), "%s",	\
				 _metadata->name);			\
	} while (0)

/*
 * Retry for a while, because the end of a write to swap may still hold a reference to a
 * page. A reference that a failure leaked does not go away.
 */
#define EXPECT_SUCCESS(at)						\
	do {								\
		char *at_ = at;						\
		struct outcome success = collapse(at_);			\
									\
		for (int again = 0; again < 40 && success.err == EAGAIN; again++) {	\
			usleep(50000);					\
			success = collapse(at_);			\
		}							\
		EXPECT_OUTCOME(success, 0, "pte_mapped_hugepage", END);	\
	} while (0)

/*
 * Check that a collapse fails and changes nothing observable. @command, if it is not NULL,
 * injects the failure.
 */
#define EXPECT_FAILURE(errno_, result_, index_, command)		\
	do {								\
		const char *inject_ = command;				\
		struct sight before, after;				\
		struct outcome failure;					\
									\
		look(self->fd, self->base, HUGE, &before);		\
		if (inject_)						\
			ASSERT_EQ(inject("%s", inject_), 0);		\
		failure = collapse(self->base);				\
		if (inject_)						\
			ASSERT_EQ(inject("off"), 0);			\
		EXPECT_OUTCOME(failure, errno_, result_, index_);	\
		look(self->fd, self->base, HUGE, &after);		\
		EXPECT_STREQ(looks_different(&before, &after) ?: "nothing", "nothing");	\
	} while (0)

TEST_F(results, alloc_huge_page_fail)
{
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, true);
	EXPECT_FAILURE(ENOMEM, "alloc_huge_page_failed", 0, "__folio_alloc_noprof fail 1 100");
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(ALLOC_HUGE_PAGE_FAIL);
}

TEST_F(results, cgroup_charge_fail)
{
	mount("none", "/sys/fs/cgroup", "cgroup2", 0, NULL);
	write_text("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	if (mkdir(CGROUP, 0700) && errno != EEXIST)
		SKIP(return, "no memory cgroups");
	if (write_text(CGROUP "/cgroup.procs", "0"))
		SKIP(return, "no memory cgroups");
	fill(self->base, true);
	/* The huge folio does not fit next to the small ones, and nothing can be reclaimed. */
	write_text(CGROUP "/memory.swap.max", "0");
	ASSERT_EQ(write_text(CGROUP "/memory.max", "3670016"), 0);
	EXPECT_FAILURE(EBUSY, "ccgroup_charge_failed", 0, NULL);
	ASSERT_EQ(write_text(CGROUP "/memory.max", "max"), 0);
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, true));
	write_text("/sys/fs/cgroup/cgroup.procs", "0");
	rmdir(CGROUP);
	REACHED(CGROUP_CHARGE_FAIL);
}

TEST_F(results, no_nodes)
{
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	/* Most nodes of the XArray are missing in the range. */
	write_page(self->base, 1);
	EXPECT_FAILURE(ENOMEM, "alloc_huge_page_failed", 0,
		       "kmem_cache_alloc_lru_noprof fail 1 1000000");
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(page_is(self->base, 1, false));
	REACHED(NO_NODES);
}

TEST_F(results, truncated)
{
	EXPECT_FAILURE(EINVAL, "truncated", START, NULL);
	write_page(self->base, NR_PAGES - 1);
	EXPECT_SUCCESS(self->base);
	REACHED(TRUNCATED);
}

TEST_F(results, fail_get_folio)
{
	for (unsigned long page = 0; page < NR_PAGES / 2; page++)
		write_page(self->base, page);
	ASSERT_EQ(ftruncate(self->fd, HUGE + HUGE / 2), 0);
	/* Pages past the end of the file are not found, although they are allocated. */
	ASSERT_EQ(fallocate(self->fd, FALLOC_FL_KEEP_SIZE, HUGE, HUGE), 0);
	EXPECT_FAILURE(EINVAL, "failed", START + NR_PAGES / 2, NULL);
	ASSERT_EQ(ftruncate(self->fd, 2 * HUGE), 0);
	EXPECT_SUCCESS(self->base);
	for (unsigned long page = 0; page < NR_PAGES; page++)
		ASSERT_TRUE(page_is(self->base, page, page >= NR_PAGES / 2));
	REACHED(FAIL_GET_FOLIO);
}

TEST_F(results, page_lock)
{
	struct parked *first, *second;
	struct outcome outcome;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, true);
	/* Park the second one first, so that its scan does not see folios locked by the first. */
	second = collapse_parked(self->base, "__folio_alloc_noprof", "park", 1);
	ASSERT_NE(second, NULL);
	first = collapse_parked(self->base, "shmem_charge", "park", 1);
	ASSERT_NE(first, NULL);
	outcome = collapse_resume(second);
	EXPECT_OUTCOME(outcome, EAGAIN, "page_locked", START + 1);
	outcome = collapse_resume(first);
	EXPECT_OUTCOME(outcome, 0, "pte_mapped_hugepage", END);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(PAGE_LOCK);
}

TEST_F(results, already_huge)
{
	struct parked *parked;
	struct outcome outcome;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, true);
	parked = collapse_parked(self->base, "__folio_alloc_noprof", "park", 1);
	ASSERT_NE(parked, NULL);
	EXPECT_SUCCESS(self->base);
	outcome = collapse_resume(parked);
	EXPECT_OUTCOME(outcome, 0, "pte_mapped_hugepage", START);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(ALREADY_HUGE);
}

static void *page_out(void *at)
{
	if (!inject("reclaim_pages park"))
		madvise(at, PAGE, MADV_PAGEOUT);
	return NULL;
}

/* Reclaim concurrently isolates a page: the first one, one in the first batch, a later one. */
TEST_F(results, del_page_lru)
{
	static const unsigned long pages[] = { 1, 4, 100 };
	struct sight before, after;
	struct outcome outcome;
	struct parked *parked;
	pthread_t reclaimer;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		fill(self->base, true);
		parked = collapse_parked(self->base, "__folio_alloc_noprof", "park", 1);
		ASSERT_NE(parked, NULL);
		ASSERT_EQ(pthread_create(&reclaimer, NULL, page_out, self->base + pages[i] * PAGE),
			  0);
		ASSERT_TRUE(inject_wait("reclaim_pages"));
		look(self->fd, self->base, HUGE, &before);
		outcome = collapse_resume(parked);
		EXPECT_OUTCOME(outcome, EAGAIN, "could_not_delete_page_from_lru",
			       START + pages[i]);
		look(self->fd, self->base, HUGE, &after);
		EXPECT_STREQ(looks_different(&before, &after) ?: "nothing", "nothing");
		ASSERT_EQ(inject("reclaim_pages off"), 0);
		pthread_join(reclaimer, NULL);
		EXPECT_SUCCESS(self->base);
		EXPECT_TRUE(content_is_right(self->base, true));
		ASSERT_EQ(madvise(self->base, HUGE, MADV_REMOVE), 0);
	}
	REACHED(DEL_PAGE_LRU);
}

TEST_F(results, page_has_private)
{
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, true);
	EXPECT_FAILURE(EAGAIN, "page_has_private", START + 3, "filemap_release_folio fail 3");
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(PAGE_HAS_PRIVATE);
}

/* A blank command is refused. It does not refer to the function of an earlier command. */
TEST_F(results, injector_refuses_a_blank_command)
{
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	ASSERT_EQ(inject("filemap_release_folio fail 1000"), 0);
	EXPECT_EQ(inject(" "), EINVAL);
	EXPECT_EQ(inject("no_such_function fail"), ENOENT);
	EXPECT_EQ(inject("off"), 0);
}

/* Rust compares folio->mapping itself, so no failure can be injected there. */
static bool calls_folio_mapping(void)
{
	return !in_rust();
}

/* This result only occurs by injection, because truncation takes the folio lock. */
TEST_F(results, not_in_mapping)
{
	struct sight before, after;
	struct outcome outcome;
	struct parked *parked;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	if (!calls_folio_mapping())
		SKIP(return, "Rust does not call folio_mapping()");
	fill(self->base, true);
	look(self->fd, self->base, HUGE, &before);
	/* No other call of folio_mapping() comes between the charge and the first folio. */
	parked = collapse_parked(self->base, "__mem_cgroup_charge", "park-after", 1);
	ASSERT_NE(parked, NULL);
	ASSERT_EQ(inject("folio_mapping fail 1 1 %d", parked_tid(parked)), 0);
	outcome = collapse_resume(parked);
	ASSERT_EQ(inject("off"), 0);
	EXPECT_OUTCOME(outcome, EINVAL, "truncated", START + 1);
	look(self->fd, self->base, HUGE, &after);
	EXPECT_STREQ(looks_different(&before, &after) ?: "nothing", "nothing");
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(NOT_IN_MAPPING);
}

/* Return the first page from @page on that fill() wrote, with holes, and that is not mapped. */
static unsigned long first_unmapped(char *base, unsigned long page)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);

	while (page < NR_PAGES &&
	       (is_hole(page) || pagemap_is_populated(pagemap, base + page * PAGE)))
		page++;
	close(pagemap);
	return page;
}

TEST_F(results, page_count)
{
	struct sight before, after;
	struct outcome outcome;
	struct parked *parked;
	struct iovec page;
	int ends[2];

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, true);
	ASSERT_EQ(pipe(ends), 0);
	look(self->fd, self->base, HUGE, &before);
	/* Park at the tenth folio, of page 11. The scan has passed, so it may be pinned now. */
	parked = collapse_parked(self->base, "filemap_release_folio", "park", 10);
	ASSERT_NE(parked, NULL);
	page = (struct iovec) { .iov_base = self->base + 11 * PAGE, .iov_len = PAGE };
	ASSERT_EQ(vmsplice(ends[1], &page, 1, 0), PAGE);
	outcome = collapse_resume(parked);
	EXPECT_OUTCOME(outcome, EAGAIN, "not_suitable_page_count", START + 11);
	/* The pages after the refused one stay mapped. */
	EXPECT_EQ(first_unmapped(self->base, 12), NR_PAGES);
	look(self->fd, self->base, HUGE, &after);
	EXPECT_STREQ(looks_different(&before, &after) ?: "nothing", "nothing");
	close(ends[0]);
	close(ends[1]);
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(PAGE_COUNT);
}

TEST_F(results, no_space)
{
	char options[32];

	fill(self->base, true);
	snprintf(options, sizeof(options), "size=%lu", (NR_PAGES - 40) * PAGE);
	ASSERT_EQ(mount("none", self->dir, "tmpfs", MS_REMOUNT, options), 0);
	EXPECT_FAILURE(ENOSPC, "no_space", END, NULL);
	ASSERT_EQ(mount("none", self->dir, "tmpfs", MS_REMOUNT, "size=16m"), 0);
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(NO_SPACE);
}

TEST_F(results, copy_mc)
{
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	if (!inject_has_copy())
		SKIP(return, "copying cannot be made to fail on this machine");
	fill(self->base, true);
	/* The memory of the page is fine, so do not report it. */
	ASSERT_EQ(inject("memory_failure_queue fail 1 1000"), 0);
	EXPECT_FAILURE(EINVAL, "copy_poisoned_page", START + 11,
		       COPY " fail 10");
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(COPY_MC);
}

TEST_F(results, store_failed)
{
	struct sight before, after;
	struct outcome outcome;
	struct parked *parked;
	char *base;
	int fd;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fd = memfd_create("collapse_file_results", MFD_CLOEXEC);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(ftruncate(fd, HUGE), 0);
	base = map_range(fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(base, NULL);
	write_page(base, 0);
	look(fd, base, 0, &before);
	parked = collapse_parked(base, "shmem_charge", "park", 1);
	ASSERT_NE(parked, NULL);
	/* Remove all other nodes and the root of the XArray. New ones cannot be allocated. */
	for (unsigned long page = 64; page < NR_PAGES; page += 64) {
		write_page(base, page);
		ASSERT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE,
				    PAGE), 0);
	}
	ASSERT_EQ(inject("kmem_cache_alloc_lru_noprof fail 1 1000000 %d", parked_tid(parked)), 0);
	outcome = collapse_resume(parked);
	ASSERT_EQ(inject("off"), 0);
	EXPECT_OUTCOME(outcome, EAGAIN, "store_failed", START);
	look(fd, base, 0, &after);
	EXPECT_STREQ(looks_different(&before, &after) ?: "nothing", "nothing");
	outcome = collapse(base);
	EXPECT_OUTCOME(outcome, 0, "pte_mapped_hugepage", START);
	for (unsigned long page = 0; page < NR_PAGES; page++)
		ASSERT_TRUE(page_is(base, page, page));
	munmap(base, HUGE);
	close(fd);
	REACHED(STORE_FAILED);
}

TEST_F(results, page_filled)
{
	struct outcome outcome;
	struct parked *parked;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, true);
	parked = collapse_parked(self->base, "shmem_charge", "park", 1);
	ASSERT_NE(parked, NULL);
	write_page(self->base, 8);
	outcome = collapse_resume(parked);
	EXPECT_OUTCOME(outcome, EAGAIN, "page_filled", END);
	EXPECT_TRUE(page_is(self->base, 8, false));
	for (unsigned long page = 0; page < NR_PAGES; page++) {
		off_t at = HUGE + page * PAGE;

		EXPECT_EQ(lseek(self->fd, at, SEEK_DATA) != at, is_hole(page) && page != 8);
	}
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(page_is(self->base, 8, false));
	EXPECT_TRUE(page_is(self->base, 16, true));
	REACHED(PAGE_FILLED);
}

TEST_F(results, exceed_none_pte)
{
	fill(self->base, true);
	ASSERT_EQ(register_missing(self->uffd, self->base), 0);
	EXPECT_FAILURE(EBUSY, "exceed_none_pte", END, NULL);
	close(self->uffd);
	self->uffd = -1;
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(EXCEED_NONE_PTE);
}

/* khugepaged scans the range only if the mount option and the advice allow it. */
TEST_F(results, khugepaged)
{
	struct thp_settings settings;
	struct outcome outcome;
	int tries = 0;

	thp_read_settings(&settings);
	thp_save_settings();
	khugepaged_without_rest(&settings);
	ASSERT_EQ(mount("none", self->dir, "tmpfs", MS_REMOUNT, "huge=advise"), 0);
	fill(self->base, true);
	ASSERT_EQ(register_missing(self->uffd, self->base), 0);
	ASSERT_EQ(madvise(self->base, HUGE, MADV_HUGEPAGE), 0);
	thp_push_settings(&settings);
	do {
		usleep(20000);
	} while (!traced_elsewhere((unsigned long)self->base, &outcome) && tries++ < 2000);
	EXPECT_STREQ(outcome.result, "exceed_none_pte");
	EXPECT_EQ(outcome.index, END);
	close(self->uffd);
	self->uffd = -1;
	do {
		usleep(20000);
		traced_elsewhere((unsigned long)self->base, &outcome);
	} while (strcmp(outcome.result, "succeeded") && tries++ < 2000);
	EXPECT_STREQ(outcome.result, "succeeded");
	EXPECT_EQ(outcome.index, END);
	thp_restore_settings();
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(SUCCEED);
}

TEST_F(results, collapsed)
{
	fill(self->base, true);
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, true));
	REACHED(PTE_MAPPED_HUGEPAGE);
}

/* Replace the file by one on a file system with large folios, of @size bytes. */
static bool on_disk(const char *variable, off_t size, int *fd, char **base)
{
	const char *dir = getenv(variable);
	char path[256];

	if (!dir)
		return false;
	munmap(*base, HUGE);
	close(*fd);
	snprintf(path, sizeof(path), "%s/collapse_file", dir);
	if (!open_file(path, fd, base))
		return false;
	unlink(path);
	return !ftruncate(*fd, size);
}

/* Use write() for one page at a time, so that all folios are small. */
static bool write_file_page(int fd, unsigned long page)
{
	static char text[NR_PAGES * PAGE];

	write_page(text, page);
	return pwrite(fd, text + page * PAGE, PAGE, HUGE + page * PAGE) == PAGE;
}

static bool write_file_pages(int fd, unsigned long count)
{
	for (unsigned long page = 0; page < count; page++)
		if (!write_file_page(fd, page))
			return false;
	return !fsync(fd);
}

/*
 * madvise() writes dirty pages back and tries once more. The end of the writeback may still
 * hold a reference to a page. The second attempt then fails before collapse_file().
 */
static bool second_attempt_missed(const struct outcome *outcome)
{
	return outcome->err == EAGAIN && outcome->events == 1;
}

TEST_F(results, fail_end_of_file)
{
	if (!on_disk("COLLAPSE_FILE_DIR", HUGE, &self->fd, &self->base))
		SKIP(return, "no COLLAPSE_FILE_DIR");
	ASSERT_TRUE(write_file_pages(self->fd, NR_PAGES / 2));
	EXPECT_FAILURE(EINVAL, "failed", START + NR_PAGES / 2, NULL);
	ASSERT_TRUE(write_file_pages(self->fd, NR_PAGES));
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, false));
	REACHED(FAIL_END_OF_FILE);
}

TEST_F(results, page_dirty)
{
	struct parked *parked = NULL;
	struct outcome outcome;

	if (!on_disk("COLLAPSE_FILE_DIR", HUGE, &self->fd, &self->base))
		SKIP(return, "no COLLAPSE_FILE_DIR");
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	ASSERT_TRUE(write_file_pages(self->fd, NR_PAGES));

	/* Park the second attempt. If it fails before collapse_file(), start over. */
	for (int tries = 0; !parked && tries < 20; tries++) {
		ASSERT_TRUE(write_file_page(self->fd, 7));
		parked = collapse_parked(self->base, "__folio_alloc_noprof", "park", 2);
	}
	ASSERT_NE(parked, NULL);
	ASSERT_TRUE(write_file_page(self->fd, 9));
	outcome = collapse_resume(parked);
	EXPECT_EQ(outcome.events, 2);
	EXPECT_STREQ(outcome.first_result, "page_dirty_or_writeback");
	EXPECT_EQ(outcome.first_index, START + 7);
	EXPECT_OUTCOME(outcome, EAGAIN, "page_dirty_or_writeback", START + 9);

	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, false));
	REACHED(PAGE_DIRTY);
}

/* If no task has the file open for writing, the collapse starts writeback of dirty pages. */
TEST_F(results, page_dirty_is_flushed)
{
	const char *dir = getenv("COLLAPSE_FILE_DIR");
	struct outcome outcome;
	struct parked *parked;
	char path[256];
	int fd;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	if (!dir)
		SKIP(return, "no COLLAPSE_FILE_DIR");
	snprintf(path, sizeof(path), "%s/collapse_file", dir);
	munmap(self->base, HUGE);
	close(self->fd);
	ASSERT_TRUE(open_file(path, &self->fd, &self->base));
	ASSERT_TRUE(write_file_pages(self->fd, NR_PAGES));
	ASSERT_TRUE(write_file_page(self->fd, 7));
	munmap(self->base, HUGE);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	close(self->fd);
	unlink(path);
	self->fd = fd;
	self->base = map_range(fd, HUGE, PROT_READ, MAP_SHARED);
	ASSERT_NE(self->base, NULL);
	parked = collapse_parked(self->base, "filemap_flush", "park", 1);
	ASSERT_NE(parked, NULL);
	outcome = collapse_resume(parked);
	EXPECT_STREQ(outcome.first_result, "page_dirty_or_writeback");
	EXPECT_EQ(outcome.first_index, START + 7);
	if (second_attempt_missed(&outcome))
		outcome = collapse(self->base);
	EXPECT_OUTCOME(outcome, 0, "pte_mapped_hugepage", END);
	EXPECT_TRUE(content_is_right(self->base, false));
}

static void *write_back(void *arg)
{
	int fd = *(int *)arg;

	if (!inject("submit_bio park"))
		sync_file_range(fd, HUGE, HUGE, SYNC_FILE_RANGE_WRITE);
	return NULL;
}

struct collapse {
	char *at;
	struct outcome outcome;
};

static void *run_collapse(void *arg)
{
	struct collapse *this = arg;

	this->outcome = collapse(this->at);
	return NULL;
}

/* A collapse refuses folios under writeback, and madvise() waits for the writeback. */
TEST_F(results, page_writeback)
{
	pthread_t writer, collapser;
	struct collapse this;
	struct outcome first;
	int tries = 2000;

	if (!on_disk("COLLAPSE_FILE_DIR", HUGE, &self->fd, &self->base))
		SKIP(return, "no COLLAPSE_FILE_DIR");
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	ASSERT_TRUE(write_file_pages(self->fd, NR_PAGES));
	/* All pages fit one bio. With more, some folios would stay locked until their bio. */
	for (unsigned long page = 0; page < 100; page++)
		ASSERT_TRUE(write_file_page(self->fd, page));
	ASSERT_EQ(pthread_create(&writer, NULL, write_back, &self->fd), 0);
	ASSERT_TRUE(inject_wait("submit_bio"));

	this.at = self->base;
	ASSERT_EQ(pthread_create(&collapser, NULL, run_collapse, &this), 0);
	while (!traced_elsewhere((unsigned long)self->base, &first) && --tries)
		usleep(1000);
	ASSERT_EQ(inject("submit_bio off"), 0);
	pthread_join(writer, NULL);
	pthread_join(collapser, NULL);
	EXPECT_EQ(first.events, 1);
	EXPECT_STREQ(first.result, "page_dirty_or_writeback");
	EXPECT_EQ(first.index, START);
	if (second_attempt_missed(&this.outcome))
		this.outcome = collapse(self->base);
	EXPECT_OUTCOME(this.outcome, 0, "pte_mapped_hugepage", END);
	EXPECT_TRUE(content_is_right(self->base, false));
	REACHED(PAGE_WRITEBACK);
}

TEST_F(results, page_dirty_after_unmap)
{
	struct outcome outcome;
	int tries = 20;

	if (!on_disk("COLLAPSE_FILE_DIR", HUGE, &self->fd, &self->base))
		SKIP(return, "no COLLAPSE_FILE_DIR");
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	ASSERT_TRUE(write_file_pages(self->fd, NR_PAGES));
	do {
		ASSERT_TRUE(content_is_right(self->base, false));
		ASSERT_EQ(inject("try_to_unmap fail 5 1000"), 0);
		outcome = collapse(self->base);
		ASSERT_EQ(inject("off"), 0);
	} while (second_attempt_missed(&outcome) && --tries);
	EXPECT_EQ(outcome.events, 2);
	EXPECT_STREQ(outcome.first_result, "page_dirty_or_writeback");
	EXPECT_EQ(outcome.first_index, START + 4);
	/* The first five pages are no longer mapped, so try_to_unmap() is called for the sixth. */
	EXPECT_EQ(outcome.err, EAGAIN);
	EXPECT_STREQ(outcome.result, "page_dirty_or_writeback");
	EXPECT_EQ(outcome.index, START + 5);
	EXPECT_SUCCESS(self->base);
	EXPECT_TRUE(content_is_right(self->base, false));
	REACHED(PAGE_DIRTY_AFTER_UNMAP);
}

TEST_F(results, fail_not_uptodate)
{
	if (!on_disk("COLLAPSE_FILE_SMALL_BLOCKS_DIR", HUGE, &self->fd, &self->base))
		SKIP(return, "no COLLAPSE_FILE_SMALL_BLOCKS_DIR");
	ASSERT_TRUE(write_file_pages(self->fd, 11));
	/* Write one block of a page. The rest of the page has not been read. */
	ASSERT_EQ(ftruncate(self->fd, 2 * HUGE), 0);
	ASSERT_EQ(pwrite(self->fd, "x", 1, HUGE + 11 * PAGE), 1);
	ASSERT_EQ(fsync(self->fd), 0);
	EXPECT_FAILURE(EINVAL, "failed", START + 11, NULL);
	ASSERT_EQ(self->base[11 * PAGE], 'x');
	EXPECT_SUCCESS(self->base);
	ASSERT_EQ(self->base[11 * PAGE], 'x');
	ASSERT_EQ(self->base[11 * PAGE + 1], 0);
	REACHED(FAIL_NOT_UPTODATE);
}

/* This case is the last one, because it counts the others. */
TEST_F(results, every_result_is_reached)
{
	for (int i = 0; i < NR_REACHED; i++)
		if (*board->by[i])
			TH_LOG("reached %s by %s", names[i], board->by[i]);
		else
			TH_LOG("not reached: %s", names[i]);
	/* Skip if only some of the cases were selected. */
	if (board->ran <= NR_REACHED)
		SKIP(return, "not all cases were run");
	if (!inject_available() || !getenv("COLLAPSE_FILE_DIR") ||
	    !getenv("COLLAPSE_FILE_SMALL_BLOCKS_DIR"))
		SKIP(return, "no injection, or no directory on a file system given");
	for (int i = 0; i < NR_REACHED; i++)
		if ((i != COPY_MC || inject_has_copy()) &&
		    (i != NOT_IN_MAPPING || calls_folio_mapping()))
			EXPECT_NE(*board->by[i], '\0');
}

TEST_HARNESS_MAIN
