// SPDX-License-Identifier: GPL-2.0
/*
 * Test what a collapse must preserve for users of a file: written data, markers in page
 * tables, and userfaultfd events.
 *
 * The tests run on any kernel, with the implementation in use. Some need
 * collapse_file_inject in debugfs. COLLAPSE_FILE_DIR is a directory for regular files.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <asm-generic/mman.h>	/* MADV_GUARD_INSTALL, which libc may not have */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/udmabuf.h>
#include <linux/userfaultfd.h>
#include <lib/test_hmm_uapi.h>

#include "collapse_file_util.h"
#include "vm_util.h"

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

FIXTURE(promises)
{
	int fd;
	/* Two mappings of the file. */
	char *base, *other;
};

FIXTURE_SETUP(promises)
{
	self->fd = memfd_create("collapse_file", 0);
	ASSERT_GE(self->fd, 0);
	ASSERT_EQ(ftruncate(self->fd, HUGE), 0);
	self->base = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	self->other = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(self->base, NULL);
	ASSERT_NE(self->other, NULL);
}

FIXTURE_TEARDOWN(promises)
{
	inject("off");
	munmap(self->other, HUGE);
	munmap(self->base, HUGE);
	close(self->fd);
}

static sigjmp_buf after_signal;

static void jump(int signal)
{
	siglongjmp(after_signal, signal);
}

/* Read a byte. Return the signal that this raises, or 0. */
static int signal_at(const char *at)
{
	struct sigaction action = { .sa_handler = jump }, bus, segv;
	int signal;

	sigaction(SIGBUS, &action, &bus);
	sigaction(SIGSEGV, &action, &segv);
	signal = sigsetjmp(after_signal, 1);
	if (!signal)
		FORCE_READ(*at);
	sigaction(SIGBUS, &bus, NULL);
	sigaction(SIGSEGV, &segv, NULL);
	return signal;
}

/* Open a userfaultfd with @features. Return -1 if the kernel does not have them. */
static int uffd_with(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api)) {
		close(uffd);
		return -1;
	}
	return uffd;
}

static int register_all(int uffd, char *at, uint64_t mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)at, .len = HUGE },
		.mode = mode,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? errno : 0;
}

struct access {
	char *at;
	bool write, done;
};

static void *access_page(void *arg)
{
	struct access *access = arg;

	if (access->write)
		*access->at = 1;
	else
		FORCE_READ(*access->at);
	__atomic_store_n(&access->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * Return whether an access triggers an event. The ioctl @request then resolves the fault.
 * Its @argument describes the page.
 */
static bool is_event(int uffd, struct access access, unsigned long request, void *argument)
{
	struct pollfd poller = { .fd = uffd, .events = POLLIN };
	struct uffd_msg message;
	pthread_t thread;
	bool came = false;

	if (pthread_create(&thread, NULL, access_page, &access))
		return false;
	while (!came && !__atomic_load_n(&access.done, __ATOMIC_ACQUIRE))
		came = poll(&poller, 1, 10) == 1 &&
		       read(uffd, &message, sizeof(message)) == sizeof(message) &&
		       message.event == UFFD_EVENT_PAGEFAULT;
	if (came)
		while (ioctl(uffd, request, argument) && errno == EAGAIN)
			;
	pthread_join(thread, NULL);
	return came;
}

/* Pages that are written through a page table while their folios are clean. */
static const unsigned long written[] = { 7, 300 };
#define NR_WRITTEN 2

/*
 * Page the range out until the page cache has none of it, or give up. Only mapped pages are paged
 * out, so the first @nr_mapped pages are mapped before each try. Return false if madvise() fails.
 */
static bool page_out(int fd, char *base, unsigned long nr_mapped)
{
	struct sight sight;

	for (int tries = 0; tries < 40; tries++) {
		for (unsigned long page = 0; page < nr_mapped; page++)
			FORCE_READ(base[page * PAGE]);
		if (madvise(base, HUGE, MADV_PAGEOUT))
			return false;
		look(fd, base, 0, &sight);
		if (!sight.cached)
			break;
		usleep(50000);
	}
	return true;
}

/* Return the first of the written pages that has lost its data, or NR_PAGES. */
static unsigned long lost_page(const char *base)
{
	for (int i = 0; i < NR_WRITTEN; i++)
		if (!page_is(base, written[i], false))
			return written[i];
	return NR_PAGES;
}

/*
 * A huge shmem folio that was only read is clean. The page table entries that map it are
 * writable, so a write only sets the dirty bit of an entry. A collapse that replaces the
 * entries with a PMD must preserve the dirty bits.
 */
TEST_F(promises, write_by_page_table_survives_reclaim)
{
	char before[16] = "never";
	struct sight sight;
	int err;

	if (read_number("/proc/meminfo", "SwapTotal:") <= 0)
		SKIP(return, "no swap space");
	/* The marker needs a page table, so that the first access cannot map a PMD. */
	if (madvise(self->base + HUGE - PAGE, PAGE, MADV_GUARD_INSTALL))
		SKIP(return, "no guard regions");
	if (!choose_setting(SHMEM_ENABLED, "always", before))
		SKIP(return, "no huge pages for shmem");
	FORCE_READ(self->base[0]);
	ASSERT_TRUE(choose_setting(SHMEM_ENABLED, before, NULL));
	look(self->fd, self->base, 0, &sight);
	if (sight.cached != NR_PAGES)
		SKIP(return, "no huge page was available");
	ASSERT_EQ(madvise(self->base + HUGE - PAGE, PAGE, MADV_GUARD_REMOVE), 0);
	for (unsigned long page = 0; page < NR_PAGES; page++)
		FORCE_READ(self->base[page * PAGE]);

	for (int i = 0; i < NR_WRITTEN; i++)
		write_page(self->base, written[i]);
	err = madvise(self->base, HUGE, MADV_COLLAPSE) ? errno : 0;
	EXPECT_EQ(err, 0);

	ASSERT_TRUE(page_out(self->fd, self->base, 0));
	EXPECT_EQ(lost_page(self->base), NR_PAGES);
}

/*
 * Small folios that were first read are clean, too. A collapse that unmaps them and then fails must
 * preserve the dirty bits of their page table entries.
 */
TEST_F(promises, write_by_page_table_survives_a_refused_collapse)
{
	int uffd = uffd_with(0), err;

	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	if (read_number("/proc/meminfo", "SwapTotal:") <= 0)
		SKIP(return, "no swap space");
	/* The last page stays a hole. */
	for (unsigned long page = 0; page < NR_PAGES - 1; page++)
		FORCE_READ(self->base[page * PAGE]);
	for (int i = 0; i < NR_WRITTEN; i++)
		write_page(self->base, written[i]);
	ASSERT_EQ(register_all(uffd, self->other, UFFDIO_REGISTER_MODE_MISSING), 0);
	err = madvise(self->base, HUGE, MADV_COLLAPSE) ? errno : 0;
	EXPECT_EQ(err, EBUSY);
	close(uffd);

	ASSERT_TRUE(page_out(self->fd, self->base, NR_PAGES - 1));
	EXPECT_EQ(lost_page(self->base), NR_PAGES);
}

/* Give @other a page table without an entry for @page. */
static void make_table(char *other, unsigned long page)
{
	FORCE_READ(other[100 * PAGE]);
	madvise(other + page * PAGE, PAGE, MADV_DONTNEED);
}

/* The poison marker stays after the userfaultfd is closed. */
TEST_F(promises, poison_survives_collapse_by_another_mapping)
{
	const unsigned long poisoned = 7;
	struct uffdio_poison poison = {
		.range = { .start = (uintptr_t)self->other + poisoned * PAGE, .len = PAGE },
	};
	int uffd = uffd_with(UFFD_FEATURE_POISON | UFFD_FEATURE_MINOR_SHMEM);

	if (uffd < 0)
		SKIP(return, "no userfaultfd that poisons");
	fill(self->base, false);
	make_table(self->other, poisoned);
	ASSERT_EQ(register_all(uffd, self->other, UFFDIO_REGISTER_MODE_MINOR), 0);
	ASSERT_EQ(ioctl(uffd, UFFDIO_POISON, &poison), 0);
	close(uffd);
	ASSERT_EQ(signal_at(self->other + poisoned * PAGE), SIGBUS);

	EXPECT_EQ(collapse(self->base).err, 0);
	EXPECT_EQ(signal_at(self->other + poisoned * PAGE), SIGBUS);
	EXPECT_EQ(signal_at(self->other + (poisoned + 1) * PAGE), 0);
	EXPECT_TRUE(content_is_right(self->base, false));
}

TEST_F(promises, guard_survives_collapse_by_another_mapping)
{
	const unsigned long guarded = 7;

	fill(self->base, false);
	make_table(self->other, guarded);
	if (madvise(self->other + guarded * PAGE, PAGE, MADV_GUARD_INSTALL))
		SKIP(return, "no guard regions");
	ASSERT_EQ(signal_at(self->other + guarded * PAGE), SIGSEGV);

	EXPECT_EQ(collapse(self->base).err, 0);
	EXPECT_EQ(signal_at(self->other + guarded * PAGE), SIGSEGV);
	EXPECT_EQ(signal_at(self->other + (guarded + 1) * PAGE), 0);
	EXPECT_TRUE(content_is_right(self->base, false));
}

struct advice {
	char *at;
	size_t len;
	int advice, err;
};

static void *advise(void *arg)
{
	struct advice *this = arg;

	this->err = madvise(this->at, this->len, this->advice) ? errno : 0;
	return NULL;
}

/*
 * Make a collapse replace the page table entries of @base with a PMD. Call madvise() with
 * @advice while the collapse holds the page table lock and has cleared the entries. Return
 * whether both happened.
 */
static bool advise_meanwhile(char *base, struct advice *advice)
{
	struct parked *parked;
	pthread_t thread;

	/* The marker keeps the faults from mapping the huge page with a PMD. */
	if (madvise(base + HUGE - PAGE, PAGE, MADV_GUARD_INSTALL))
		return false;
	for (unsigned long page = 0; page < NR_PAGES - 1; page++)
		FORCE_READ(base[page * PAGE]);
	madvise(base + HUGE - PAGE, PAGE, MADV_GUARD_REMOVE);
	parked = collapse_parked(base, "folio_remove_rmap_ptes", "stall", 1);
	if (!parked)
		return false;
	if (pthread_create(&thread, NULL, advise, advice)) {
		collapse_resume(parked);
		return false;
	}
	/*
	 * The advice waits for the lock. The stall must end by itself, because there may be no CPU
	 * left to end it.
	 */
	pthread_join(thread, NULL);
	collapse_resume(parked);
	return true;
}

/* The lock may be unfair, so that the collapse wins by chance. Try several times. */
#define ROUNDS 10

/* On a busy machine the collapse may release the lock before the call of madvise(). */
#define TRIES 100

TEST_F(promises, guard_survives_collapse_meanwhile)
{
	struct advice advice = {
		.at = self->other + 7 * PAGE, .len = PAGE, .advice = MADV_GUARD_INSTALL,
	};
	int rounds = 0;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, false);
	ASSERT_EQ(collapse(self->base).err, 0);
	for (int try = 0; try < TRIES && rounds < ROUNDS; try++) {
		if (!advise_meanwhile(self->other, &advice))
			continue;
		rounds++;
		ASSERT_EQ(advice.err, 0);
		ASSERT_EQ(signal_at(advice.at), SIGSEGV) TH_LOG("round %d", rounds);
		ASSERT_EQ(madvise(self->other, HUGE, MADV_GUARD_REMOVE), 0);
	}
	ASSERT_GT(rounds, 0);
}

/* Without split page table locks, a kernel may free the page table twice here. */
TEST_F(promises, page_table_is_freed_once)
{
	struct advice advice = {
		.at = self->other, .len = HUGE, .advice = MADV_DONTNEED,
	};
	int rounds = 0;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fill(self->base, false);
	ASSERT_EQ(collapse(self->base).err, 0);
	for (int try = 0; try < TRIES && rounds < ROUNDS; try++) {
		if (advise_meanwhile(self->other, &advice)) {
			rounds++;
			ASSERT_EQ(advice.err, 0);
			ASSERT_TRUE(content_is_right(self->other, false));
		}
		/* Remove the PMD, so that the next round has page table entries again. */
		ASSERT_EQ(madvise(self->other, HUGE, MADV_DONTNEED), 0);
	}
	ASSERT_GT(rounds, 0);
}

struct pin {
	int device, memfd;
	int dmabuf;		/* -errno if there is none */
	bool done;
};

static void *pin_all(void *arg)
{
	struct pin *pin = arg;
	struct udmabuf_create create = {
		.memfd = pin->memfd, .flags = UDMABUF_FLAGS_CLOEXEC, .size = HUGE,
	};

	pin->dmabuf = ioctl(pin->device, UDMABUF_CREATE, &create);
	if (pin->dmabuf < 0)
		pin->dmabuf = -errno;
	__atomic_store_n(&pin->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * Writes of a device to pinned pages must reach the file. This includes pages that are pinned
 * during a collapse, after it has checked for pins.
 */
TEST_F(promises, write_by_device_reaches_the_file)
{
	struct pin pin = { .device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC) };
	struct parked *parked;
	pthread_t thread;
	char *base, *device;

	if (pin.device < 0)
		SKIP(return, "no /dev/udmabuf");
	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	pin.memfd = memfd_create("collapse_file", MFD_ALLOW_SEALING);
	ASSERT_EQ(ftruncate(pin.memfd, HUGE), 0);
	ASSERT_EQ(fcntl(pin.memfd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	base = map_range(pin.memfd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(base, NULL);
	fill(base, false);

	/* Here the collapse has checked all folios for other users, and has replaced none. */
	parked = collapse_parked(base, "try_to_unmap_flush", "park", 1);
	ASSERT_NE(parked, NULL);
	ASSERT_EQ(pthread_create(&thread, NULL, pin_all, &pin), 0);
	/* The thread pins the pages now, or waits for the collapse. */
	for (int tries = 0; tries < 50 && !__atomic_load_n(&pin.done, __ATOMIC_ACQUIRE); tries++)
		usleep(10000);
	collapse_resume(parked);
	pthread_join(thread, NULL);
	ASSERT_GE(pin.dmabuf, 0) TH_LOG("%s", strerror(-pin.dmabuf));

	device = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, pin.dmabuf, 0);
	ASSERT_NE(device, MAP_FAILED);
	EXPECT_TRUE(content_is_right(device, false));
	for (unsigned long page = 0; page < NR_PAGES; page += 100) {
		device[page * PAGE] = ~device[page * PAGE];
		EXPECT_EQ(base[page * PAGE], device[page * PAGE]) TH_LOG("page %lu", page);
	}
	munmap(device, HUGE);
	munmap(base, HUGE);
	close(pin.dmabuf);
	close(pin.memfd);
	close(pin.device);
}

/*
 * A device that mirrors page tables must be notified when a page is replaced. The private
 * mapping keeps its page table, so that only the unmapping of the old pages notifies it.
 */
TEST_F(promises, device_that_mirrors_memory_sees_later_writes)
{
	int device = open("/dev/hmm_dmirror0", O_RDWR | O_CLOEXEC);
	struct hmm_dmirror_cmd command = { .npages = NR_PAGES };
	struct outcome outcome;
	char *private, *seen;

	if (device < 0)
		SKIP(return, "no /dev/hmm_dmirror0: the kernel has no CONFIG_TEST_HMM");
	fill(self->base, false);
	private = map_range(self->fd, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	ASSERT_NE(private, NULL);
	private[0] = ~private[0];
	seen = malloc(HUGE);
	ASSERT_NE(seen, NULL);
	command.addr = (uintptr_t)private;
	command.ptr = (uintptr_t)seen;
	ASSERT_EQ(ioctl(device, HMM_DMIRROR_READ, &command), 0) TH_LOG("%m");
	EXPECT_EQ(memcmp(seen, private, HUGE), 0);

	outcome = collapse(self->base);
	EXPECT_EQ(outcome.err, 0) TH_LOG("%s", outcome.result);
	for (unsigned long page = 1; page < NR_PAGES; page++)
		self->base[page * PAGE] = ~self->base[page * PAGE];
	ASSERT_EQ(ioctl(device, HMM_DMIRROR_READ, &command), 0) TH_LOG("%m");
	EXPECT_EQ(memcmp(seen, private, HUGE), 0);

	free(seen);
	munmap(private, HUGE);
	close(device);
}

/* An access to a page in the page cache triggers a minor fault event until UFFDIO_CONTINUE. */
TEST_F(promises, minor_fault_survives_collapse)
{
	int uffd = uffd_with(UFFD_FEATURE_MINOR_SHMEM);

	if (uffd < 0)
		SKIP(return, "no userfaultfd for minor faults");
	fill(self->base, false);
	ASSERT_EQ(register_all(uffd, self->other, UFFDIO_REGISTER_MODE_MINOR), 0);
	for (unsigned long page = 3; page < NR_PAGES; page += 400) {
		char *at = self->other + page * PAGE;
		struct uffdio_continue go_on = {
			.range = { .start = (uintptr_t)at, .len = PAGE },
		};

		EXPECT_TRUE(is_event(uffd, (struct access){ .at = at }, UFFDIO_CONTINUE, &go_on))
			TH_LOG("page %lu", page);
		/* The collapse may replace the folios, but must not map them here. */
		madvise(self->other, HUGE, MADV_COLLAPSE);
	}
	EXPECT_TRUE(content_is_right(self->base, false));
	close(uffd);
}

/* A write to a page that is write protected in another mapping triggers an event. */
TEST_F(promises, write_protection_survives_collapse_by_another_mapping)
{
	int uffd = uffd_with(UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
	struct uffdio_writeprotect all = {
		.range = { .start = (uintptr_t)self->other, .len = HUGE },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	struct outcome outcome;

	if (uffd < 0)
		SKIP(return, "no userfaultfd that write protects shmem");
	fill(self->base, false);
	ASSERT_EQ(register_all(uffd, self->other, UFFDIO_REGISTER_MODE_WP), 0);
	ASSERT_TRUE(content_is_right(self->other, false));
	ASSERT_EQ(ioctl(uffd, UFFDIO_WRITEPROTECT, &all), 0);
	outcome = collapse(self->base);
	EXPECT_EQ(outcome.err, 0) TH_LOG("%s", outcome.result);
	for (unsigned long page = 5; page < NR_PAGES; page += 100) {
		char *at = self->other + page * PAGE;
		struct uffdio_writeprotect one = {
			.range = { .start = (uintptr_t)at, .len = PAGE },
		};

		EXPECT_TRUE(is_event(uffd, (struct access){ .at = at, .write = true },
				     UFFDIO_WRITEPROTECT, &one))
			TH_LOG("page %lu", page);
	}
	close(uffd);
}

#ifdef UFFDIO_RWPROTECT
/* An access to a page that is protected from reads and writes triggers an event. */
TEST_F(promises, rw_protection_survives_collapse_by_another_mapping)
{
	int uffd = uffd_with(UFFD_FEATURE_RWP);
	struct uffdio_rwprotect all = {
		.range = { .start = (uintptr_t)self->other, .len = HUGE },
		.mode = UFFDIO_RWPROTECT_MODE_RWP,
	};

	if (uffd < 0)
		SKIP(return, "no userfaultfd that protects from reading");
	fill(self->base, false);
	ASSERT_EQ(register_all(uffd, self->other, UFFDIO_REGISTER_MODE_RWP), 0);
	ASSERT_TRUE(content_is_right(self->other, false));
	ASSERT_EQ(ioctl(uffd, UFFDIO_RWPROTECT, &all), 0);
	for (unsigned long page = 5; page < NR_PAGES; page += 200) {
		char *at = self->other + page * PAGE;
		struct uffdio_rwprotect one = {
			.range = { .start = (uintptr_t)at, .len = PAGE },
		};

		EXPECT_TRUE(is_event(uffd, (struct access){ .at = at, .write = page > 5 },
				     UFFDIO_RWPROTECT, &one))
			TH_LOG("page %lu", page);
		madvise(self->base, HUGE, MADV_COLLAPSE);
	}
	close(uffd);
}
#endif

/* An access past the end of a regular file raises SIGBUS, even if a huge folio reaches there. */
TEST_F(promises, sigbus_past_the_end)
{
	struct iovec page;
	const char *why;
	int fd, ends[2];
	char *base;

	fd = regular_file(&why);
	if (fd < 0)
		SKIP(return, "%s", why);
	base = map_range(fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	ASSERT_NE(base, NULL);
	if (collapse(base).err)
		SKIP(return, "the file system has no huge pages");

	/* A page that is dirty and in use keeps the folio from being split. */
	write_page(base, 10);
	ASSERT_EQ(pipe(ends), 0);
	page = (struct iovec){ .iov_base = base + 10 * PAGE, .iov_len = PAGE };
	ASSERT_EQ(vmsplice(ends[1], &page, 1, 0), PAGE);
	ASSERT_EQ(ftruncate(fd, HUGE / 2), 0);
	ASSERT_EQ(signal_at(base + 300 * PAGE), SIGBUS);

	madvise(base, HUGE, MADV_COLLAPSE);
	EXPECT_EQ(signal_at(base + 300 * PAGE), SIGBUS);
	EXPECT_EQ(signal_at(base + 255 * PAGE), 0);
	for (unsigned long page = 0; page < NR_PAGES / 2; page++)
		EXPECT_TRUE(page_is(base, page, false));
	close(ends[0]);
	close(ends[1]);
	munmap(base, HUGE);
	close(fd);
}

struct direct_write {
	int fd;
	pid_t tid;
	bool go;
	ssize_t written;
};

static void *write_directly(void *arg)
{
	struct direct_write *direct = arg;
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(page, 'n', PAGE);
	__atomic_store_n(&direct->tid, syscall(__NR_gettid), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&direct->go, __ATOMIC_ACQUIRE))
		usleep(1000);
	direct->written = pwrite(direct->fd, page, PAGE, 0);
	munmap(page, PAGE);
	return NULL;
}

/* Return whether a thread is in uninterruptible sleep, as when it waits for a folio lock. */
static bool sleeps(pid_t tid)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	fclose(file);
	return state == 'D';
}

/*
 * A read after an O_DIRECT write returns the new data. The write invalidates the page in the
 * page cache, and for this it waits for the lock of a folio that a collapse replaces.
 */
TEST_F(promises, read_after_direct_write)
{
	struct direct_write direct = {};
	struct parked *parked;
	char page[PAGE], *base;
	const char *why;
	pthread_t thread;
	int fd;

	if (!inject_available())
		SKIP(return, "no collapse_file_inject in debugfs");
	fd = regular_file(&why);
	if (fd < 0)
		SKIP(return, "%s", why);
	base = map_range(fd, 0, PROT_READ, MAP_SHARED);
	ASSERT_NE(base, NULL);
	snprintf(page, sizeof(page), "/proc/self/fd/%d", fd);
	direct.fd = open(page, O_RDWR | O_DIRECT | O_CLOEXEC);
	ASSERT_GE(direct.fd, 0);

	/* The write has invalidated the page once, and is parked before its bio is submitted. */
	ASSERT_EQ(pthread_create(&thread, NULL, write_directly, &direct), 0);
	while (!__atomic_load_n(&direct.tid, __ATOMIC_ACQUIRE))
		usleep(1000);
	ASSERT_EQ(inject("submit_bio park 1 1 %d", direct.tid), 0);
	__atomic_store_n(&direct.go, true, __ATOMIC_RELEASE);
	ASSERT_TRUE(inject_wait("submit_bio"));

	/* Read the old page again, and park a collapse before it copies the page. */
	ASSERT_EQ(pread(fd, page, PAGE, 0), PAGE);
	parked = collapse_parked(base, "try_to_unmap_flush", "park", 1);
	ASSERT_NE(parked, NULL);
	ASSERT_EQ(inject("submit_bio off"), 0);
	for (int tries = 0, asleep = 0; tries < 1000 && asleep < 20; tries++) {
		asleep = sleeps(direct.tid) ? asleep + 1 : 0;
		usleep(5000);
	}
	collapse_resume(parked);
	pthread_join(thread, NULL);
	ASSERT_EQ(direct.written, PAGE);

	ASSERT_EQ(pread(fd, page, PAGE, 0), PAGE);
	EXPECT_EQ(page[0], 'n');
	EXPECT_EQ(memcmp(page, page + 1, PAGE - 1), 0);
	munmap(base, HUGE);
	close(direct.fd);
	close(fd);
}

TEST_HARNESS_MAIN
