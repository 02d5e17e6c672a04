// SPDX-License-Identifier: GPL-2.0
/*
 * collapse_fuzz: the operations on files.
 */
#define _GNU_SOURCE
#include <asm-generic/mman.h>	/* MADV_GUARD_INSTALL, which libc may not have */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "collapse_file_util.h"
#include "collapse_fuzz.h"
#include "vm_util.h"

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM 0x1000
#endif

#define MAX_PINS	16

const struct file_kind kinds[NR_KINDS] = {
	[MEMFD] = { "memfd", 35, NULL },
	[TMPFS] = { "tmpfs", 15, "huge=never" },
	[TMPFS_SMALL] = { "tmpfs-small", 10, "huge=never,size=1536k" },
	[TMPFS_HUGE] = { "tmpfs-huge", 12, "huge=always" },
	[ANON] = { "anon", 10, NULL },
	[REGULAR] = { "regular", 18, NULL },
};

struct failure failures[NR_FAILURES] = {
	{ "__folio_alloc_noprof", 1, 4, true, true },
	{ "__mem_cgroup_charge", 1, 4, true, true },
	{ "kmem_cache_alloc_lru_noprof", 4, 6, true, true },
	{ "xas_nomem", 2, 2, true, true },
	{ "shmem_get_folio", 96, 6, true, false },
	{ "filemap_release_folio", 96, 6, true, true },
	/* ext4 does not expect a page without buffers to become dirty. */
	{ "try_to_unmap", 96, 6, true, false },
	{ "shmem_charge", 1, 8, true, false },
	{ COPY, 96, 6, true, true },
};

static const int uffd_modes[] = {
	UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_MINOR, UFFDIO_REGISTER_MODE_WP,
	UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
	UFFDIO_REGISTER_MODE_RWP,
};

/*
 * The expected content of the file, and the pages that private mappings have copied.
 */
char model[AREA], buffer[AREA];
static bool model_used[AREA_PAGES];
unsigned int private_versions[NR_SLOTS][NR_PAGES];
bool barred[NR_SLOTS][NR_PAGES];
bool broken[NR_PAGES];

/*
 * Random numbers: splitmix64.
 */
static __thread uint64_t rng;

void seed_random(uint64_t seed)
{
	rng = seed;
}

static uint64_t next(void)
{
	uint64_t z = (rng += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

unsigned int below(unsigned int limit)
{
	return next() % limit;
}

bool chance(unsigned int percent)
{
	return below(100) < percent;
}

static __thread sigjmp_buf bus;
static __thread bool guarded;

/* The fences order the flag and the guarded accesses, for the signal handler. */
static void set_guard(bool on)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	guarded = on;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void on_bus(__maybe_unused int signal)
{
	if (guarded)
		siglongjmp(bus, 1);
	(void)!write(STDERR_FILENO, "unexpected signal\n", 18);
	_exit(EXIT_FAILURE);
}

int compare_page(const char *at, const char *with, size_t len)
{
	int ret;

	set_guard(true);
	if (sigsetjmp(bus, 0)) {
		set_guard(false);
		return 0;
	}
	ret = memcmp(at, with, len);
	set_guard(false);
	return ret;
}

bool touch_page(char *at)
{
	set_guard(true);
	if (sigsetjmp(bus, 0)) {
		set_guard(false);
		return false;
	}
	__atomic_load_n(at, __ATOMIC_RELAXED);
	set_guard(false);
	return true;
}

const unsigned int stamp_places[3] = { 0, PAGE / 2, PAGE - sizeof(uint64_t) };

uint64_t stamp(unsigned int page, unsigned int version)
{
	return (uint64_t)version << 32 | 0x80008000 | page;
}

bool stamp_page(char *at, unsigned int page, unsigned int version)
{
	set_guard(true);
	if (sigsetjmp(bus, 0)) {
		set_guard(false);
		return false;
	}
	for (int i = 0; i < 3; i++)
		__atomic_store_n((uint64_t *)(at + stamp_places[i]), stamp(page, version),
				 __ATOMIC_RELAXED);
	set_guard(false);
	return true;
}

/*
 * Operations. They return 0 or -errno. A comment names the arguments. PAGE is relative to the
 * start of the range.
 */
static int result(long ret)
{
	return ret < 0 ? -errno : 0;
}

off_t size_of(struct twin *twin)
{
	struct stat st;

	return fstat(twin->fd, &st) ? 0 : st.st_size;
}

/* Return the address of @page in a slot, or NULL. Limit @nr to the pages in the slot. */
static char *in_slot(struct twin *twin, unsigned int nr_slot, unsigned int page, unsigned int *nr)
{
	struct slot *slot = &twin->slots[nr_slot];

	if (nr_slot >= NR_SLOTS || !slot->at || page < slot->page || page >= slot->page + slot->nr)
		return NULL;
	if (*nr > slot->page + slot->nr - page)
		*nr = slot->page + slot->nr - page;
	return slot->at + (page - slot->page) * PAGE;
}

void model_write(size_t at, const char *from, size_t len)
{
	memcpy(model + at, from, len);
	for (size_t page = at / PAGE; page * PAGE < at + len; page++)
		model_used[page] = true;
}

static void model_stamp(unsigned int page, unsigned int version)
{
	stamp_page(model + page * PAGE, page, version);
	model_used[page] = true;
}

static void model_zero(size_t at, size_t len)
{
	for (size_t page = at / PAGE; page * PAGE < at + len; page++) {
		size_t first = page * PAGE < at ? at : page * PAGE;
		size_t end = (page + 1) * PAGE < at + len ? (page + 1) * PAGE : at + len;

		if (model_used[page])
			memset(model + first, 0, end - first);
	}
}

static int write_pages(struct twin *twin, unsigned int page, unsigned int nr)
{
	ssize_t len;

	if (page + nr > AREA_PAGES)
		return -EINVAL;
	twin->version++;
	for (unsigned int i = 0; i < nr; i++)
		stamp_page(buffer + i * PAGE, page + i, twin->version);
	len = pwrite(twin->fd, buffer, nr * PAGE, twin->start + page * PAGE);
	if (len > 0)
		model_write(page * PAGE, buffer, len);
	return len == (ssize_t)(nr * PAGE) ? 0 : len < 0 ? -errno : -EIO;
}

/* write:PAGE,COUNT */
static int op_write(struct twin *twin, const unsigned int *arg)
{
	return write_pages(twin, arg[0], arg[1]);
}

/* fill:FIRST,STEP,COUNT,PAGES: COUNT writes of PAGES, STEP pages apart */
static int op_fill(struct twin *twin, const unsigned int *arg)
{
	unsigned int page = arg[0];
	int err = 0;

	for (unsigned int i = 0; i < arg[2] && page + arg[3] <= NR_PAGES && !err; i++) {
		err = write_pages(twin, page, arg[3]);
		page += arg[1];
	}
	return err;
}

/* direct:PAGE,COUNT: write with O_DIRECT */
static int op_direct(struct twin *twin, const unsigned int *arg)
{
	static char *pages;
	char path[32];
	ssize_t len;
	int fd;

	if (!pages)
		pages = aligned_alloc(PAGE, AREA);
	if ((fcntl(twin->fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		return -EBADF;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", twin->fd);
	fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	twin->version++;
	for (unsigned int i = 0; i < arg[1]; i++)
		stamp_page(pages + i * PAGE, arg[0] + i, twin->version);
	len = pwrite(fd, pages, arg[1] * PAGE, twin->start + arg[0] * PAGE);
	if (len > 0)
		model_write(arg[0] * PAGE, pages, len);
	close(fd);
	return result(len);
}

/* bytes:PAGE,BYTE,LENGTH */
static int op_bytes(struct twin *twin, const unsigned int *arg)
{
	size_t at = arg[0] * PAGE + arg[1];
	ssize_t len;

	memset(buffer, ++twin->version % 255 + 1, arg[2]);
	len = pwrite(twin->fd, buffer, arg[2], twin->start + at);
	if (len > 0)
		model_write(at, buffer, len);
	return result(len);
}

/* Pages past the end are not touched, because an access may succeed or raise a signal there. */
unsigned int below_end(struct twin *twin, unsigned int page, unsigned int nr)
{
	off_t pages = (size_of(twin) - twin->start) / (off_t)PAGE - page;

	return pages < 0 ? 0 : pages < nr ? pages : nr;
}

/* store:SLOT,PAGE,COUNT */
static int op_store(struct twin *twin, const unsigned int *arg)
{
	unsigned int page = arg[1], nr = arg[2];
	char *at = in_slot(twin, arg[0], page, &nr);
	int err = 0;

	if (!at)
		return -ENXIO;
	if (!arg[0] && (fcntl(twin->fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		return -EBADF;
	twin->version++;
	nr = below_end(twin, page, nr);
	for (unsigned int i = 0; i < nr; i++) {
		if (!stamp_page(at + i * PAGE, page + i, twin->version))
			err = -EFAULT;
		else if (twin->slots[arg[0]].private)
			private_versions[arg[0]][page + i] = twin->version;
		else
			model_stamp(page + i, twin->version);
	}
	return err;
}

/*
 * scribble:PAGE,COUNT: write past the end of the file. The file system determines whether a
 * page is mapped there. The data must not appear when the file grows.
 */
static int op_scribble(struct twin *twin, const unsigned int *arg)
{
	unsigned int page = arg[0], nr = arg[1];
	char *at = in_slot(twin, 0, page, &nr);
	off_t end = size_of(twin) - twin->start;

	if (!at || (fcntl(twin->fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		return -ENXIO;
	for (unsigned int i = 0; i < nr; i++)
		if ((off_t)((page + i) * PAGE) >= end)
			stamp_page(at + i * PAGE, page + i, 1);
	return 0;
}

/* load:SLOT,PAGE,COUNT */
static int op_load(struct twin *twin, const unsigned int *arg)
{
	unsigned int page = arg[1], nr = arg[2];
	char *at = in_slot(twin, arg[0], page, &nr);
	int err = 0;

	if (!at)
		return -ENXIO;
	nr = below_end(twin, page, nr);
	for (unsigned int i = 0; i < nr; i++)
		if (!touch_page(at + i * PAGE))
			err = -EFAULT;
	return err;
}

/* Removing a page may remove its marker too, so do not expect the markers any more. */
static void unbar(int nr_slot, unsigned int page, unsigned int nr)
{
	for (unsigned int i = page; i < page + nr && i < NR_PAGES; i++)
		barred[nr_slot][i] = false;
}

static void unbar_all(unsigned int page, unsigned int nr)
{
	for (int i = 0; i < NR_SLOTS; i++)
		unbar(i, page, nr);
}

static int punch(struct twin *twin, size_t at, size_t len)
{
	int err = result(fallocate(twin->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   twin->start + at, len));

	if (!err)
		model_zero(at, len);
	unbar_all(at / PAGE, len / PAGE + 2);
	return err;
}

/* punch:PAGE,COUNT */
static int op_punch(struct twin *twin, const unsigned int *arg)
{
	return punch(twin, arg[0] * PAGE, arg[1] * PAGE);
}

/* zero:PAGE,BYTE,LENGTH: punch parts of pages */
static int op_zero(struct twin *twin, const unsigned int *arg)
{
	return punch(twin, arg[0] * PAGE + arg[1], arg[2]);
}

static int truncate_to(struct twin *twin, size_t size)
{
	int err = result(ftruncate(twin->fd, twin->start + size));
	unsigned int end = (size + PAGE - 1) / PAGE;

	if (err)
		return err;
	model_zero(size, AREA - size);
	unbar_all(size / PAGE, NR_PAGES);
	for (int i = 0; i < NR_SLOTS && end < NR_PAGES; i++)
		memset(&private_versions[i][end], 0, (NR_PAGES - end) * sizeof(int));
	return 0;
}

/* truncate:PAGE,BYTE */
static int op_truncate(struct twin *twin, const unsigned int *arg)
{
	return truncate_to(twin, arg[0] * PAGE + arg[1]);
}

/* grow: to the initial size */
static int op_grow(struct twin *twin, __maybe_unused const unsigned int *arg)
{
	return truncate_to(twin, AREA);
}

/* allocate:PAGE,COUNT,KEEP_SIZE */
static int op_allocate(struct twin *twin, const unsigned int *arg)
{
	return result(fallocate(twin->fd, arg[2] ? FALLOC_FL_KEEP_SIZE : 0,
				twin->start + arg[0] * PAGE, arg[1] * PAGE));
}

/* map:SLOT,PRIVATE,PAGE,COUNT */
static int op_map(struct twin *twin, const unsigned int *arg)
{
	struct slot *slot = &twin->slots[arg[0]];
	int prot = PROT_READ | PROT_WRITE;

	if (arg[0] >= NR_SLOTS || slot->at)
		return -EEXIST;
	/* Align the whole range for a huge page. */
	slot->at = arg[3] == NR_PAGES ?
		map_range(twin->fd, twin->start, prot, arg[1] ? MAP_PRIVATE : MAP_SHARED) :
		mmap(NULL, arg[3] * PAGE, prot, arg[1] ? MAP_PRIVATE : MAP_SHARED, twin->fd,
		     twin->start + arg[2] * PAGE);
	if (slot->at == MAP_FAILED)
		slot->at = NULL;
	if (!slot->at)
		return -errno;
	slot->private = arg[1];
	slot->page = arg[3] == NR_PAGES ? 0 : arg[2];
	slot->nr = arg[3];
	memset(private_versions[arg[0]], 0, sizeof(private_versions[0]));
	return 0;
}

/* unmap:SLOT */
static int op_unmap(struct twin *twin, const unsigned int *arg)
{
	struct slot *slot = &twin->slots[arg[0]];

	if (!arg[0] || arg[0] >= NR_SLOTS || !slot->at)
		return -ENXIO;
	munmap(slot->at, slot->nr * PAGE);
	slot->at = NULL;
	unbar(arg[0], 0, NR_PAGES);
	return 0;
}

/* lock:SLOT,ONFAULT,PAGE,COUNT */
static int op_lock(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[3];
	char *at = in_slot(twin, arg[0], arg[2], &nr);
	bool on_fault;

	if (!at)
		return -ENXIO;
	/* Without ONFAULT, mlock() would make a private mapping copy its pages. */
	on_fault = arg[1] || twin->slots[arg[0]].private;
	return result(mlock2(at, nr * PAGE, on_fault ? MLOCK_ONFAULT : 0));
}

/* unlock:SLOT,PAGE,COUNT */
static int op_unlock(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[2];
	char *at = in_slot(twin, arg[0], arg[1], &nr);

	return at ? result(munlock(at, nr * PAGE)) : -ENXIO;
}

/* pageout:PAGE,COUNT */
static int op_pageout(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[1];
	char *at = in_slot(twin, 0, arg[0], &nr);

	/* MADV_PAGEOUT reclaims only mapped pages. Map the resident ones, and fill no holes. */
	nr = below_end(twin, arg[0], nr);
	for (unsigned int i = 0; i < nr; i++) {
		unsigned char resident;

		if (!mincore(at + i * PAGE, PAGE, &resident) && resident & 1)
			touch_page(at + i * PAGE);
	}
	twin->paged_out = true;
	return result(madvise(at, nr * PAGE, MADV_PAGEOUT));
}

/* pin:PAGE,COUNT: until the end of the history */
static int op_pin(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[1];
	struct iovec iov = { .iov_base = in_slot(twin, 0, arg[0], &nr) };

	nr = below_end(twin, arg[0], nr);
	iov.iov_len = nr * PAGE;
	if (!nr)
		return -ENXIO;
	if (twin->pipe[0] < 0 && pipe2(twin->pipe, O_NONBLOCK | O_CLOEXEC))
		return -errno;
	twin->pinned = true;
	return result(vmsplice(twin->pipe[1], &iov, 1, SPLICE_F_NONBLOCK));
}

int open_sigbus_uffd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MINOR_SHMEM |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_POISON |
			    UFFD_FEATURE_RWP,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -1;
	if (ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -1;
	}
	return fd;
}

int register_uffd(int uffd, char *at, unsigned int nr, unsigned int mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)at, .len = nr * PAGE },
		.mode = uffd_modes[mode % ARRAY_SIZE(uffd_modes)],
	};

	return result(ioctl(uffd, UFFDIO_REGISTER, &reg));
}

/* uffd:SLOT,MODE,PAGE,COUNT */
static int op_uffd(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[3];
	char *at = in_slot(twin, arg[0], arg[2], &nr);

	if (!at)
		return -ENXIO;
	if (twin->uffd < 0)
		twin->uffd = open_sigbus_uffd();
	return register_uffd(twin->uffd, at, nr, arg[1]);
}

/* uffd-off:SLOT,PAGE,COUNT */
static int op_uffd_off(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[2];
	struct uffdio_range range = { .start = (uintptr_t)in_slot(twin, arg[0], arg[1], &nr) };

	range.len = nr * PAGE;
	if (!range.start || twin->uffd < 0)
		return -ENXIO;
	return result(ioctl(twin->uffd, UFFDIO_UNREGISTER, &range));
}

/* protect:SLOT,PAGE,COUNT: by userfaultfd */
static int op_protect(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[2];
	struct uffdio_writeprotect wp = {
		.range.start = (uintptr_t)in_slot(twin, arg[0], arg[1], &nr),
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	wp.range.len = nr * PAGE;
	if (!wp.range.start || twin->uffd < 0)
		return -ENXIO;
	return result(ioctl(twin->uffd, UFFDIO_WRITEPROTECT, &wp));
}

/* rw-protect:SLOT,PAGE,COUNT: by userfaultfd */
static int op_rw_protect(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[2];
	struct uffdio_rwprotect rwp = {
		.range.start = (uintptr_t)in_slot(twin, arg[0], arg[1], &nr),
		.mode = UFFDIO_RWPROTECT_MODE_RWP,
	};

	rwp.range.len = nr * PAGE;
	if (!rwp.range.start || twin->uffd < 0)
		return -ENXIO;
	return result(ioctl(twin->uffd, UFFDIO_RWPROTECT, &rwp));
}

/* poison:SLOT,PAGE: by userfaultfd, which poisons only unmapped pages */
static int op_poison(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = 1;
	char *at = in_slot(twin, arg[0], arg[1], &nr);
	struct uffdio_poison poison = { .range = { .start = (uintptr_t)at, .len = PAGE } };

	if (!at || twin->uffd < 0)
		return -ENXIO;
	if (ioctl(twin->uffd, UFFDIO_POISON, &poison))
		return -errno;
	barred[arg[0]][arg[1]] = true;
	return 0;
}

/*
 * hwpoison:PAGE: fail the memory of the page. A shmem page is an error from now on. A page of
 * a regular file is read again.
 */
static int op_hwpoison(struct twin *twin, const unsigned int *arg)
{
	char *at = twin->slots[0].at + arg[0] * PAGE;
	int pagemap, err;

	if (twin->nr_poisoned == MAX_POISONED)
		return -ENOSPC;
	/* A dirty page of a regular file would be lost. */
	if (twin->regular)
		fsync(twin->fd);
	if (!touch_page(at))
		return -EFAULT;
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	twin->poisoned[twin->nr_poisoned++] = pagemap_get_pfn(pagemap, at);
	close(pagemap);
	broken[arg[0]] = true;
	/* The kernel may raise SIGBUS because the page is gone. */
	set_guard(true);
	if (sigsetjmp(bus, 0)) {
		set_guard(false);
		return 0;
	}
	err = result(madvise(at, PAGE, MADV_HWPOISON));
	set_guard(false);
	return err;
}

/* A poisoned page would keep the rest of its 2 MiB block from being used for a huge page. */
static void unpoison(struct twin *twin)
{
	char pfn[32];

	for (int i = 0; i < twin->nr_poisoned; i++) {
		snprintf(pfn, sizeof(pfn), "%lu", twin->poisoned[i]);
		write_text(UNPOISON, pfn);
	}
}

/* guard:SLOT,PAGE,COUNT */
static int op_guard(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[2];
	char *at = in_slot(twin, arg[0], arg[1], &nr);

	if (!at)
		return -ENXIO;
	if (madvise(at, nr * PAGE, MADV_GUARD_INSTALL))
		return -errno;
	for (unsigned int page = arg[1]; page < arg[1] + nr; page++) {
		barred[arg[0]][page] = true;
		private_versions[arg[0]][page] = 0;
	}
	return 0;
}

/* unguard:SLOT,PAGE,COUNT */
static int op_unguard(struct twin *twin, const unsigned int *arg)
{
	unsigned int nr = arg[2];
	char *at = in_slot(twin, arg[0], arg[1], &nr);

	if (!at)
		return -ENXIO;
	unbar(arg[0], arg[1], nr);
	return result(madvise(at, nr * PAGE, MADV_GUARD_REMOVE));
}

static __noreturn void be_child(struct twin *twin, const unsigned int *arg, int ready)
{
	unsigned int nr = below_end(twin, arg[1], arg[2]);
	char *at = twin->slots[0].at + arg[1] * PAGE;
	char ok = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (arg[0] == 2) {
		at = map_range(twin->fd, twin->start, PROT_READ | PROT_WRITE, MAP_SHARED);
		if (!at || register_uffd(open_sigbus_uffd(), at + arg[1] * PAGE, arg[2], arg[3]))
			ok = 0;
	}
	for (unsigned int i = 0; i < nr && arg[0] != 2; i++)
		touch_page(at + i * PAGE);
	(void)!write(ready, &ok, 1);
	for (;;)
		pause();
}

/*
 * child:WHAT,PAGE,COUNT,MODE: start another process, until the end of the history. It touches
 * the pages in the inherited mapping (0 or 1), or registers a userfaultfd on a new one (2).
 */
static int op_child(struct twin *twin, const unsigned int *arg)
{
	int pipe[2];
	char ok = 0;
	pid_t pid;

	if (twin->nr_children == NR_CHILDREN)
		return -EAGAIN;
	if (pipe2(pipe, O_CLOEXEC))
		bail_out("pipe");
	fflush(NULL);
	pid = fork();
	if (!pid)
		be_child(twin, arg, pipe[1]);
	close(pipe[1]);
	if (pid > 0) {
		twin->children[twin->nr_children++] = pid;
		(void)!read(pipe[0], &ok, 1);
	}
	close(pipe[0]);
	return ok ? 0 : -ENOMEM;
}

/* migrate:PAGE,COUNT,NODE */
static int op_migrate(struct twin *twin, const unsigned int *arg)
{
	int nodes[NR_PAGES], status[NR_PAGES];
	void *pages[NR_PAGES];
	unsigned int nr = arg[1];
	char *at = in_slot(twin, 0, arg[0], &nr);

	for (unsigned int i = 0; i < nr; i++) {
		pages[i] = at + i * PAGE;
		nodes[i] = arg[2];
	}
	/* Ignore the result. The number of pages moved does not depend on the history alone. */
	syscall(__NR_move_pages, 0, nr, pages, nodes, status, 2 /* MPOL_MF_MOVE */);
	return 0;
}

/* split:ORDER: split mapped large folios */
static int op_split(struct twin *twin, const unsigned int *arg)
{
	unsigned long at = (uintptr_t)twin->slots[0].at;
	char command[80];

	snprintf(command, sizeof(command), "%d,0x%lx,0x%lx,%u", getpid(), at, at + HUGE, arg[0]);
	write_text(SPLIT, command);
	return 0;
}

static void set_knob(unsigned int order, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), THP "hugepages-%lukB/shmem_enabled", PAGE << order >> 10);
	write_text(path, text);
}

/* knob:ORDER: set the order of folios that anonymous shmem allocates in a fault */
static int op_knob(struct twin *twin, const unsigned int *arg)
{
	if (twin->knob)
		set_knob(twin->knob, "never");
	twin->knob = arg[0];
	set_knob(twin->knob, "always");
	return 0;
}

/* sync-some:PAGE,COUNT */
static int op_sync_some(struct twin *twin, const unsigned int *arg)
{
	return result(sync_file_range(twin->fd, twin->start + arg[0] * PAGE, arg[1] * PAGE,
				      SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_BEFORE |
				      SYNC_FILE_RANGE_WAIT_AFTER));
}

/* forget:PAGE,COUNT: drop pages from the page cache */
static int op_forget(struct twin *twin, const unsigned int *arg)
{
	op_sync_some(twin, arg);
	return -posix_fadvise(twin->fd, twin->start + arg[0] * PAGE, arg[1] * PAGE,
			     POSIX_FADV_DONTNEED);
}

/* drop-caches */
static int op_drop_caches(__maybe_unused struct twin *twin, __maybe_unused const unsigned int *arg)
{
	return -write_text("/proc/sys/vm/drop_caches", "1");
}

/* read-ahead:PAGE,COUNT */
static int op_read_ahead(struct twin *twin, const unsigned int *arg)
{
	return result(readahead(twin->fd, twin->start + arg[0] * PAGE, arg[1] * PAGE));
}

/* sync */
static int op_sync(struct twin *twin, __maybe_unused const unsigned int *arg)
{
	return result(fsync(twin->fd));
}

/* reopen: read-only, so that no process has the file open for writing */
static int op_reopen(struct twin *twin, __maybe_unused const unsigned int *arg)
{
	int fd = open(twin->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(twin->fd);
	twin->fd = fd;
	if (mmap(twin->slots[0].at, HUGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
		 twin->start) == MAP_FAILED)
		return -errno;
	unbar(0, 0, NR_PAGES);
	return 0;
}

/* fail:FAILURE,FIRST,COUNT: inject a failure into the next collapse */
static int op_fail(struct twin *twin, const unsigned int *arg)
{
	twin->failure = arg;
	return 0;
}

/* meanwhile:PLACE,DEED,PAGE,DRAIN: run another operation while the next collapse is parked */
static int op_meanwhile(struct twin *twin, const unsigned int *arg)
{
	twin->meanwhile = arg;
	return 0;
}

/* limit:KIB: limit the memory that the cgroup may add during the next collapse */
static int op_limit(struct twin *twin, const unsigned int *arg)
{
	twin->limit = arg;
	return 0;
}

/*
 * Collapse, with the failure, limit or concurrent operation that the history has prepared.
 */
static void prepare_failure(const unsigned int *arg)
{
	const char *function = failures[arg[0]].function;

	/* The kernel must not handle the page as poisoned, because its memory is fine. */
	if (!strcmp(function, COPY)) {
		if (!inject_has_copy())
			return;
		inject("memory_failure_queue fail 1 1000");
	}
	if (inject("%s fail %u %u", function, arg[1], arg[2]))
		bail_out(function);
}

static void set_limit(unsigned int kib)
{
	char path[160], text[32];
	long current;

	/* Without swap, the charge of the new folio cannot swap out other pages. */
	snprintf(path, sizeof(path), "%s/memory.swap.max", cgroup);
	write_text(path, kib ? "0" : "max");
	snprintf(path, sizeof(path), "%s/memory.current", cgroup);
	current = read_number(path, "");
	snprintf(path, sizeof(path), "%s/memory.max", cgroup);
	snprintf(text, sizeof(text), "%ld", current + kib * 1024L);
	write_text(path, kib ? text : "max");
}

/*
 * madvise() writes back dirty pages of a regular file and calls collapse_file() again. It does
 * not call it if the end of the writeback still holds a reference to a page.
 */
static bool was_in_use(const struct outcome *outcome)
{
	return outcome->err == EAGAIN && outcome->events == 1 &&
	       !strcmp(outcome->result, "page_dirty_or_writeback");
}

/* Return whether a collapse failed because the disk was still reading a page. */
static bool is_being_read(const struct twin *twin, const struct outcome *outcome)
{
	return twin->regular && outcome->err == EAGAIN && outcome->events > 0 &&
	       !strcmp(outcome->result, "page_locked");
}

static struct outcome collapse_twin(struct twin *twin)
{
	char *at = twin->slots[0].at;

	/* Do not retry, because a pin does not go away. */
	return twin->pinned ? collapse_once(at) : collapse(at);
}

/*
 * The places where a collapse can be parked: before it has changed anything, or with all
 * folios locked. There is no place in between, because the implementations process the pages
 * in a different order. One may see a filled hole at once, and the other one only at the end.
 */
static const struct {
	const char *function, *action;
	bool locks;
} places[] = {
	{ "__mem_cgroup_charge", "park-after", false },
	{ "try_to_unmap_flush", "park", true },
	{ "shmem_charge", "park", true },
};

static bool twin_is_hole(struct twin *twin, unsigned int page)
{
	off_t at = twin->start + page * PAGE;

	return lseek(twin->fd, at, SEEK_DATA) != at;
}

static void fill_hole(struct twin *twin, unsigned int page)
{
	while (page < NR_PAGES && !twin_is_hole(twin, page))
		page++;
	if (below_end(twin, page, 1))
		write_pages(twin, page, 1);
}

static void map_hole(struct twin *twin, unsigned int page)
{
	while (page < NR_PAGES && !twin_is_hole(twin, page))
		page++;
	op_map(twin, (unsigned int []){ 2, 0, 0, NR_PAGES });
	op_load(twin, (unsigned int []){ 2, page, 1 });
}

static void register_alias(struct twin *twin)
{
	op_map(twin, (unsigned int []){ 3, 0, 0, NR_PAGES });
	op_uffd(twin, (unsigned int []){ 3, 0, 0, NR_PAGES });
}

/* The deeds up to REGISTER are for holes. In a regular file, holes are like other pages. */
enum { FILL_HOLE, MAP_HOLE, REGISTER, PIN, PUNCH, STORE, LOAD, TRUNCATE, NR_DEEDS };

static void do_meanwhile(struct twin *twin, unsigned int place, unsigned int deed,
			 unsigned int page)
{
	bool needs_lock = deed > REGISTER || (twin->regular && deed != REGISTER);

	/* An operation on a locked folio would wait for the collapse, which waits for this task. */
	if (needs_lock && places[place].locks)
		return;
	switch (deed) {
	case FILL_HOLE:
		fill_hole(twin, page);
		break;
	case MAP_HOLE:
		map_hole(twin, page);
		break;
	case REGISTER:
		register_alias(twin);
		break;
	case PIN:
		op_pin(twin, (unsigned int []){ page, 1 });
		break;
	case PUNCH:
		op_punch(twin, (unsigned int []){ page, 8 });
		break;
	case STORE:
		op_store(twin, (unsigned int []){ 0, page, 1 });
		break;
	case LOAD:
		op_load(twin, (unsigned int []){ 0, page, 1 });
		break;
	case TRUNCATE:
		op_truncate(twin, (unsigned int []){ page, 0 });
	}
}

/*
 * madvise(MADV_COLLAPSE) drains the LRU batches first. It does nothing else in a range without
 * a page table. The page after the range makes the mapping one that can be collapsed.
 */
void drain_lru(void)
{
	static char *nothing;

	if (!nothing) {
		nothing = mmap(NULL, 3 * HUGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		nothing = (char *)(((uintptr_t)nothing + HUGE - 1) & ~(HUGE - 1));
		nothing[HUGE] = 1;
	}
	madvise(nothing, HUGE, MADV_COLLAPSE);
}

/* Run the concurrent operation, if the collapse reaches the place. */
static struct outcome collapse_meanwhile(struct twin *twin)
{
	unsigned int place = twin->meanwhile[0] % ARRAY_SIZE(places);
	struct parked *parked;

	/* Write back first, because the duration of writeback does not depend on the history. */
	if (twin->regular)
		fsync(twin->fd);
	parked = collapse_parked(twin->slots[0].at, places[place].function,
				 places[place].action, 1);
	if (!parked)
		return collapse_twin(twin);
	do_meanwhile(twin, place, twin->meanwhile[1], twin->meanwhile[2]);
	if (twin->meanwhile[3])
		drain_lru();
	return collapse_resume(parked);
}

/*
 * Retry while the outcome depends on the disk. A second attempt may find pages that are being
 * read, and a third one pages under writeback.
 */
static void collapse_again(struct twin *twin, struct outcome *outcome)
{
	for (int tries = 0; tries < 10; tries++) {
		bool read = is_being_read(twin, outcome);
		int events = outcome->events;

		if (read)
			events--;
		else if (!was_in_use(outcome))
			return;
		twin->nr_again += read;
		/* All retries together take about one second. */
		usleep(1000 << tries);
		*outcome = collapse_twin(twin);
		outcome->events += events;
	}
}

static int op_collapse(struct twin *twin, __maybe_unused const unsigned int *arg)
{
	struct outcome *outcome = &twin->outcomes[twin->nr_collapses];

	if (twin->nr_collapses == MAX_COLLAPSES)
		return -ENOSPC;
	twin->nr_collapses++;
	if (twin->limit)
		set_limit(twin->limit[0]);
	/* With a child, copy-on-write faults would count as calls of the function. */
	if (twin->failure && !twin->nr_children)
		prepare_failure(twin->failure);
	if (twin->sabotaged)
		inject("__mem_cgroup_charge fail 1 1");
	*outcome = twin->meanwhile && !twin->pinned ? collapse_meanwhile(twin) :
						      collapse_twin(twin);
	collapse_again(twin, outcome);
	if (twin->failure || twin->sabotaged)
		inject("off");
	if (twin->limit)
		set_limit(0);
	twin->failure = NULL;
	twin->limit = NULL;
	twin->meanwhile = NULL;
	return -outcome->err;
}

/*
 * Random arguments for the operations.
 */
static void some_pages(unsigned int *arg, unsigned int limit)
{
	static const unsigned int sizes[] = { 1, 1, 1, 2, 3, 4, 8, 16, 32, 64, 128, NR_PAGES };
	unsigned int nr = sizes[below(12)];

	if (chance(25))
		nr = 1 + below(nr);
	if (nr > limit)
		nr = limit;
	arg[0] = below(limit - nr + 1);
	if (chance(40))
		arg[0] -= arg[0] % nr;
	arg[1] = nr;
}

static void make_pages(unsigned int *arg)
{
	some_pages(arg, NR_PAGES);
}

static void make_pages_or_beyond(unsigned int *arg)
{
	some_pages(arg, chance(90) ? NR_PAGES : AREA_PAGES);
}

static void make_fill(unsigned int *arg)
{
	arg[3] = 1 << below(6);
	arg[1] = arg[3] << below(4);
	arg[0] = chance(60) ? 0 : below(64);
	arg[2] = chance(60) ? NR_PAGES / arg[1] : 1 + below(NR_PAGES / arg[1]);
	/* Limit the number of writes, because they take longer than all other operations. */
	if (arg[2] > 128)
		arg[2] = 32 + below(96);
}

static void make_bytes(unsigned int *arg)
{
	arg[0] = below(NR_PAGES);
	arg[1] = below(PAGE);
	arg[2] = 1 + below(2 * PAGE);
}

static void make_truncate(unsigned int *arg)
{
	arg[0] = below(NR_PAGES + 1);
	arg[1] = chance(60) ? 0 : below(PAGE);
}

static void make_allocate(unsigned int *arg)
{
	make_pages_or_beyond(arg);
	arg[2] = chance(40);
}

static void make_slot(unsigned int *arg)
{
	arg[0] = chance(50) ? 0 : below(NR_SLOTS);
}

static void make_other_slot(unsigned int *arg)
{
	arg[0] = 1 + below(NR_SLOTS - 1);
}

/*
 * Mostly use all pages of the mapping that is collapsed. An operation on a part would split the
 * VMA, and the collapse would fail with EINVAL.
 */
static void whole_if_first(unsigned int slot, unsigned int *arg)
{
	make_pages(arg);
	if (!slot && chance(95)) {
		arg[0] = 0;
		arg[1] = NR_PAGES;
	}
}

static void make_slot_pages(unsigned int *arg)
{
	make_slot(arg);
	make_pages(arg + 1);
}

static void make_slot_whole(unsigned int *arg)
{
	make_slot(arg);
	whole_if_first(arg[0], arg + 1);
}

static void make_page(unsigned int *arg)
{
	arg[0] = below(NR_PAGES);
}

static void make_slot_page(unsigned int *arg)
{
	make_slot(arg);
	arg[1] = below(NR_PAGES);
}

static void make_guard(unsigned int *arg)
{
	make_slot(arg);
	arg[1] = below(NR_PAGES);
	arg[2] = 1 + below(4);
}

static void make_map(unsigned int *arg)
{
	make_other_slot(arg);
	arg[1] = chance(40);
	make_pages(arg + 2);
	if (chance(60)) {
		arg[2] = 0;
		arg[3] = NR_PAGES;
	}
}

static void make_lock(unsigned int *arg)
{
	make_slot(arg);
	arg[1] = chance(70);
	whole_if_first(arg[0], arg + 2);
}

static void make_pin(unsigned int *arg)
{
	arg[0] = below(NR_PAGES);
	arg[1] = 1 + below(MAX_PINS);
}

static void make_uffd(unsigned int *arg)
{
	arg[0] = chance(15) ? 0 : 1 + below(NR_SLOTS - 1);
	arg[1] = chance(50) ? 0 : below(ARRAY_SIZE(uffd_modes));
	whole_if_first(arg[0], arg + 2);
}

static void make_child(unsigned int *arg)
{
	arg[0] = below(3);
	make_pages(arg + 1);
	arg[3] = chance(60) ? 0 : below(ARRAY_SIZE(uffd_modes));
}

static void make_migrate(unsigned int *arg)
{
	make_pages(arg);
	arg[2] = below(2);
}

static void make_split(unsigned int *arg)
{
	arg[0] = chance(50) ? 0 : below(9);
}

static void make_knob(unsigned int *arg)
{
	arg[0] = 2 + below(7);
}

static void make_limit(unsigned int *arg)
{
	arg[0] = 512 + 256 * below(5);
}

static void make_meanwhile(unsigned int *arg)
{
	arg[0] = below(ARRAY_SIZE(places));
	arg[1] = below(NR_DEEDS);
	arg[2] = arg[1] <= REGISTER ? below(NR_PAGES) : NR_PAGES / 2 + below(NR_PAGES / 2);
	arg[3] = chance(60);
}

static void make_fail(unsigned int *arg)
{
	unsigned int calls;

	calls = failures[arg[0]].calls;
	arg[1] = 1 + below(chance(50) && calls > 4 ? 4 : calls);
	arg[2] = chance(80) ? 1 : 1 + below(calls);
}

const struct op_kind op_kinds[] = {
	{ "collapse", 0, op_collapse, NULL, 0, 0 },
	{ "fail", 3, op_fail, make_fail, 0, INJECTS },
	{ "meanwhile", 4, op_meanwhile, make_meanwhile, 0, INJECTS },
	{ "limit", 1, op_limit, make_limit, 0, LIMITS | SHMEM },
	{ "knob", 1, op_knob, make_knob, 0, KNOBS },
	{ "fill", 4, op_fill, make_fill, 6, 0 },
	{ "write", 2, op_write, make_pages_or_beyond, 14, 0 },
	{ "direct", 2, op_direct, make_pages, 6, DISK },
	{ "bytes", 3, op_bytes, make_bytes, 5, 0 },
	{ "store", 3, op_store, make_slot_pages, 10, 0 },
	{ "scribble", 2, op_scribble, make_pages, 4, 0 },
	{ "load", 3, op_load, make_slot_pages, 8, 0 },
	{ "punch", 2, op_punch, make_pages_or_beyond, 10, 0 },
	{ "zero", 3, op_zero, make_bytes, 3, 0 },
	{ "truncate", 2, op_truncate, make_truncate, 4, 0 },
	{ "grow", 0, op_grow, NULL, 4, 0 },
	{ "allocate", 3, op_allocate, make_allocate, 6, 0 },
	{ "map", 4, op_map, make_map, 10, 0 },
	{ "unmap", 1, op_unmap, make_other_slot, 2, 0 },
	{ "lock", 4, op_lock, make_lock, 3, 0 },
	{ "unlock", 3, op_unlock, make_slot_whole, 2, 0 },
	{ "pageout", 2, op_pageout, make_pages, 10, SWAPS | NO_LARGE_SHMEM },
	{ "pin", 2, op_pin, make_pin, 1, 0 },
	{ "uffd", 4, op_uffd, make_uffd, 6, SHMEM },
	{ "uffd-off", 3, op_uffd_off, make_slot_whole, 2, SHMEM },
	{ "protect", 3, op_protect, make_slot_pages, 2, SHMEM },
	{ "rw-protect", 3, op_rw_protect, make_slot_pages, 2, SHMEM },
	{ "poison", 2, op_poison, make_slot_page, 2, SHMEM },
	{ "hwpoison", 1, op_hwpoison, make_page, 1, POISONS },
	{ "guard", 3, op_guard, make_guard, 3, 0 },
	{ "unguard", 3, op_unguard, make_slot_whole, 3, 0 },
	{ "child", 4, op_child, make_child, 2, 0 },
	{ "migrate", 3, op_migrate, make_migrate, 4, TWO_NODES },
	{ "split", 1, op_split, make_split, 3, SPLITS },
	{ "forget", 2, op_forget, make_pages, 8, DISK },
	{ "drop-caches", 0, op_drop_caches, NULL, 1, DISK },
	{ "read-ahead", 2, op_read_ahead, make_pages, 6, DISK },
	{ "sync", 0, op_sync, NULL, 8, DISK },
	{ "sync-some", 2, op_sync_some, make_pages, 4, DISK },
	{ "reopen", 0, op_reopen, NULL, 3, DISK },
};

const int nr_op_kinds = ARRAY_SIZE(op_kinds);

int op_named(const char *name)
{
	for (int kind = 0; kind < nr_op_kinds; kind++)
		if (!strcmp(op_kinds[kind].name, name))
			return kind;
	return -1;
}

bool op_is(const struct op *op, const char *name)
{
	return !strcmp(op_kinds[op->kind].name, name);
}

/*
 * Create and remove a file.
 */
static int open_file(struct twin *twin)
{
	static unsigned int serial;

	switch (twin->history->kind) {
	case MEMFD:
		return memfd_create("collapse_fuzz", MFD_CLOEXEC);
	case ANON:
		/* Only map_files gives a descriptor for anonymous shared memory. */
		twin->slots[0].at = map_range(-1, 0, PROT_READ | PROT_WRITE,
					      MAP_SHARED | MAP_ANONYMOUS);
		snprintf(twin->path, sizeof(twin->path), "/proc/self/map_files/%lx-%lx",
			 (uintptr_t)twin->slots[0].at, (uintptr_t)twin->slots[0].at + HUGE);
		return open(twin->path, O_RDWR | O_CLOEXEC);
	case REGULAR:
		snprintf(twin->path, sizeof(twin->path), "%s/collapse_fuzz.%d.%u", disk,
			 getpid(), serial++);
		break;
	default:
		snprintf(twin->path, sizeof(twin->path), "%s/%s/file", base_dir,
			 kinds[twin->history->kind].name);
	}
	return open(twin->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

void begin_twin(struct twin *twin, const struct history *history)
{
	*twin = (struct twin) {
		.history = history,
		.regular = history->kind == REGULAR,
		.uffd = -1,
		.pipe = { -1, -1 },
		.start = history->at * HUGE,
	};
	model_zero(0, AREA);
	memset(model_used, 0, sizeof(model_used));
	memset(private_versions, 0, sizeof(private_versions));
	memset(barred, 0, sizeof(barred));
	memset(broken, 0, sizeof(broken));
	twin->fd = open_file(twin);
	if (twin->fd < 0)
		bail_out(twin->path);
	if (ftruncate(twin->fd, twin->start + AREA))
		bail_out("ftruncate");
	if (!twin->slots[0].at)
		twin->slots[0].at = map_range(twin->fd, twin->start, PROT_READ | PROT_WRITE,
					      MAP_SHARED);
	if (!twin->slots[0].at)
		bail_out("mmap");
	twin->slots[0].nr = NR_PAGES;
}

void end_twin(struct twin *twin)
{
	for (int i = 0; i < twin->nr_children; i++) {
		kill(twin->children[i], SIGKILL);
		waitpid(twin->children[i], NULL, 0);
	}
	for (int i = 0; i < 2; i++)
		if (twin->pipe[i] >= 0)
			close(twin->pipe[i]);
	if (twin->uffd >= 0)
		close(twin->uffd);
	for (int i = 0; i < NR_SLOTS; i++)
		if (twin->slots[i].at)
			munmap(twin->slots[i].at, twin->slots[i].nr * PAGE);
	close(twin->fd);
	if (twin->path[0] && twin->history->kind != ANON)
		unlink(twin->path);
	unpoison(twin);
	if (twin->knob)
		set_knob(twin->knob, "never");
}
