// SPDX-License-Identifier: GPL-2.0
/*
 * Measure how often a collapse succeeds while another task uses the range.
 *
 *	collapse_contention [-n TRIES] [-t] [-v] [MODE...]
 *
 * A try is one madvise(MADV_COLLAPSE) of 2 MiB of a memfd in small folios. Users on the
 * other CPU access the range concurrently, in the way that MODE selects. C and Rust take turns in
 * small blocks of tries. In mode wait-i-mmap, 256 processes map the file. The user is a
 * process, and its fork(), exit(), mmap() and munmap() take i_mmap_rwsem.
 *
 * With -t the program counts the results in the kernel trace. With -v it checks each
 * collapsed range.
 *
 * The output has these lines for each mode and implementation. Times are in ns:
 *
 *	begin MODE
 *	tries MODE c|rust TRIES SUCCESSES TIME
 *	time MODE c|rust try|success|OPERATION MEDIAN P99 MAX COUNT
 *	result MODE c|rust WORD COUNT
 *
 * For each successful try, the longest user operation that overlaps with it counts. A try
 * that is refused ends early and delays no user, so it does not count.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/param.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "collapse_contention.h"
#include "collapse_file_util.h"
#include "vm_util.h"

#define TRACING		"/sys/kernel/tracing/instances/collapse_contention"
#define EVENTS		TRACING "/events/huge_memory"

#define DEFAULT_TRIES	1500
#define FEW_TRIES	60	/* in modes with processes */
#define BLOCK		25	/* tries in a row with one implementation */
#define MAX_WORDS	32
#define NR_MAPPERS	255	/* 256 with the one that collapses */

static pid_t fork_child(void)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* Processes that map all pages each time they get SIGUSR1. */
static pid_t mappers[NR_MAPPERS];
static int mapped[2];

static void keep_mapped(void)
{
	sigset_t signals;
	int signal;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	for (;;) {
		sigwait(&signals, &signal);
		if (madvise(range.base, HUGE, MADV_POPULATE_READ) || write(mapped[1], "", 1) != 1)
			_exit(1);
	}
}

static void fork_mappers(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	if (pipe(mapped))
		die("pipe: %s", strerror(errno));
	for (int i = 0; i < NR_MAPPERS; i++) {
		mappers[i] = fork_child();
		if (!mappers[i])
			keep_mapped();
	}
}

static void map_everywhere(void)
{
	char byte;

	for (int i = 0; i < NR_MAPPERS; i++)
		kill(mappers[i], SIGUSR1);
	for (int i = 0; i < NR_MAPPERS; i++)
		if (read(mapped[0], &byte, 1) != 1)
			die("a process that maps the file has exited");
}

/* Counts and times of the tries of a mode with one implementation. */
static struct tally {
	long tries, ok, time;
	struct times {
		long *all, count;
	} tried, succeeded, used[MAX_OPS];
	struct word {
		char text[64];
		long count;
	} words[MAX_WORDS];
} tallies[NR_IMPLS];

static void count(struct tally *tally, const char *text)
{
	struct word *word = tally->words;

	while (word->count && strcmp(word->text, text))
		if (++word == tally->words + MAX_WORDS - 1)
			break;
	snprintf(word->text, sizeof(word->text), "%s", text);
	word->count++;
}

/* The trace has only the events of this thread. */
static int trace_fd = -1;

static void begin_trace(void)
{
	char pid[16];

	if (mkdir(TRACING, 0700) && errno != EEXIST)
		die("%s: %s", TRACING, strerror(errno));
	snprintf(pid, sizeof(pid), "%d", getpid());
	set(TRACING "/set_event_pid", pid);
	set(EVENTS "/mm_khugepaged_scan_file/enable", "1");
	set(EVENTS "/mm_khugepaged_collapse_file/enable", "1");
	trace_fd = open(TRACING "/trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (trace_fd < 0)
		die(TRACING "/trace_pipe: %s", strerror(errno));
}

static void end_trace(void)
{
	close(trace_fd);
	set(TRACING "/events/enable", "0");
	rmdir(TRACING);
}

/* Count the result of collapse_file(), or that of the scan if there was no call. */
static void count_trace(struct tally *tally)
{
	static char text[65536];
	bool called = false;
	ssize_t len;

	while ((len = read(trace_fd, text, sizeof(text) - 1)) > 0) {
		char *rest = text;

		text[len] = '\0';
		for (char *line; (line = strsep(&rest, "\n")) && *line;) {
			bool scan = strstr(line, " mm_khugepaged_scan_file: ");
			char *result = strstr(line, " result="), word[64];

			if (!result)
				continue;
			snprintf(word, sizeof(word), "%s:%.40s", scan ? "scan" : "collapse",
				 result + strlen(" result="));
			if (!scan || !called)
				count(tally, word);
			called = !scan;
		}
	}
}

/*
 * Prepare a range of small pages that are mapped, on the LRU, and active. The activation of a
 * page takes a short-lived reference, so it must happen before the users start.
 */
static void prepare(bool anew)
{
	char byte;

	if (anew && fallocate(range.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE))
		die("fallocate: %s", strerror(errno));
	if (madvise(range.base, HUGE, MADV_POPULATE_WRITE))
		die("the pages cannot be allocated: %s", strerror(errno));
	for (unsigned long page = 0; anew && page < 2 * NR_PAGES; page++)
		if (pread(range.fd, &byte, 1, page % NR_PAGES * PAGE) != 1)
			die("pread: %s", strerror(errno));
	if (mode->alias && madvise(range.alias, HUGE, MADV_POPULATE_READ))
		die("the pages cannot be mapped: %s", strerror(errno));
	if (mode->processes)
		map_everywhere();
}

static void add_time(struct times *times, long time)
{
	times->all[times->count++] = time;
}

static void take_longest(struct tally *tally)
{
	for (int op = 0; op < nr_ops(); op++) {
		long longest = 0;

		for (int user = 0; user < mode->users; user++)
			if (shared->longest[user][op] > longest)
				longest = shared->longest[user][op];
		if (longest)
			add_time(&tally->used[op], longest);
	}
}

/* Collapse once. Return whether the next try needs a new range. */
static bool try(struct tally *tally, bool verify)
{
	int err;
	long time;

	memset(shared->longest, 0, sizeof(shared->longest));
	shared->working = 0;
	__atomic_store_n(&shared->phase, READY, __ATOMIC_RELEASE);
	for (int user = 0; user < mode->users; user++)
		sem_post(&shared->begin);
	while (__atomic_load_n(&shared->working, __ATOMIC_ACQUIRE) < mode->users)
		sched_yield();

	__atomic_store_n(&shared->phase, TRY, __ATOMIC_RELEASE);
	time = now();
	err = madvise(range.base, HUGE, MADV_COLLAPSE) ? errno : 0;
	time = now() - time;
	__atomic_store_n(&shared->phase, REST, __ATOMIC_RELEASE);
	for (int user = 0; user < mode->users; user++)
		sem_wait(&shared->end);

	tally->tries++;
	tally->time += time;
	add_time(&tally->tried, time);
	if (err) {
		count(tally, strerrorname_np(err));
	} else {
		tally->ok++;
		add_time(&tally->succeeded, time);
		if (verify && !check_huge_shmem(range.base, HUGE, 1, HUGE))
			count(tally, "not-huge");
		take_longest(tally);
	}
	return !err || mode->collapses;
}

static int compare(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

static void print_times(struct times *times, const char *impl, const char *what)
{
	if (!times->count)
		return;
	qsort(times->all, times->count, sizeof(*times->all), compare);
	printf("time %s %s %s %ld %ld %ld %ld\n", mode->name, impl, what,
	       times->all[times->count / 2], times->all[times->count * 99 / 100],
	       times->all[times->count - 1], times->count);
}

static void print_tally(struct tally *tally, const char *impl)
{
	printf("tries %s %s %ld %ld %ld\n", mode->name, impl, tally->tries, tally->ok, tally->time);
	print_times(&tally->tried, impl, "try");
	print_times(&tally->succeeded, impl, "success");
	for (int op = 0; op < nr_ops(); op++)
		print_times(&tally->used[op], impl, mode->ops[op] ?: mode->name);
	for (const struct word *word = tally->words; word < tally->words + MAX_WORDS; word++)
		if (word->count)
			printf("result %s %s %s %ld\n", mode->name, impl, word->text, word->count);
}

/* Allocate room for the times of @tries tries, or free it if @tries is 0. */
static void make_room(long tries)
{
	for (struct tally *tally = tallies; tally < tallies + NR_IMPLS; tally++) {
		struct times *all[] = { &tally->tried, &tally->succeeded, &tally->used[0],
					&tally->used[1], &tally->used[2], &tally->used[3] };

		for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
			free(all[i]->all);
			all[i]->all = tries ? calloc(tries, sizeof(long)) : NULL;
			if (tries && !all[i]->all)
				die("no memory");
		}
	}
}

static void prepare_users(pthread_t *threads, pid_t *process)
{
	if (mode->processes) {
		fork_mappers();
		*process = fork_child();
		if (!*process) {
			stand_by(NULL);
			_exit(0);
		}
		return;
	}
	for (intptr_t user = 0; user < mode->users; user++)
		if (pthread_create(&threads[user], NULL, stand_by, (void *)user))
			die("cannot create a thread");
}

static void release_users(pthread_t *threads, pid_t process)
{
	shared->stop = true;
	for (int user = 0; user < mode->users; user++)
		sem_post(&shared->begin);
	if (mode->processes) {
		waitpid(process, NULL, 0);
		for (int i = 0; i < NR_MAPPERS; i++) {
			kill(mappers[i], SIGKILL);
			waitpid(mappers[i], NULL, 0);
		}
	} else {
		for (int user = 0; user < mode->users; user++)
			pthread_join(threads[user], NULL);
	}
	shared->stop = false;
}

static void run_block(int impl, long tries, bool verify)
{
	static bool done;

	use(impls[impl]);
	while (tries--) {
		prepare(done || !tallies[impl].tries);
		done = try(&tallies[impl], verify);
	}
	if (trace_fd >= 0)
		count_trace(&tallies[impl]);
}

static void run(long tries, bool verify)
{
	pthread_t threads[MAX_USERS];
	pid_t process = 0;

	printf("begin %s\n", mode->name);
	fflush(stdout);
	range.fd = memfd_create("collapse_contention", MFD_CLOEXEC);
	if (range.fd < 0 || ftruncate(range.fd, HUGE))
		die("cannot create a memfd: %s", strerror(errno));
	range.base = map_range(range.fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	range.alias = NULL;
	if (mode->alias)
		range.alias = map_range(range.fd, 0, PROT_READ | PROT_WRITE, MAP_SHARED);
	if (!range.base || (mode->alias && !range.alias))
		die("mmap: %s", strerror(errno));
	memset(tallies, 0, sizeof(tallies));
	make_room(tries);
	prepare_users(threads, &process);

	/* Change the order in each block. */
	for (long block = 0; block * BLOCK < tries; block++) {
		long left = MIN(tries - block * BLOCK, BLOCK);

		run_block((block + 0) % NR_IMPLS, left, verify);
		run_block((block + 1) % NR_IMPLS, left, verify);
	}

	release_users(threads, process);
	for (int i = 0; i < NR_IMPLS; i++)
		print_tally(&tallies[i], impls[i]);
	fflush(stdout);
	make_room(0);
	if (range.alias)
		munmap(range.alias, HUGE);
	munmap(range.base, HUGE);
	close(range.fd);
}

static const struct mode *find_mode(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(modes[i].name, name))
			return &modes[i];
	return NULL;
}

static __noreturn void wrong_usage(void)
{
	fprintf(stderr, "usage: collapse_contention [-n TRIES] [-t] [-v] [MODE...]\nmodes:");
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		fprintf(stderr, " %s", modes[i].name);
	fprintf(stderr, "\n");
	exit(2);
}

int main(int argc, char **argv)
{
	bool trace = false, verify = false;
	const char *before;
	long tries = 0;
	char *end = "";
	int option;

	while ((option = getopt(argc, argv, "n:tv")) != -1) {
		if (option == 'n')
			tries = strtol(optarg, &end, 10);
		else if (option == 't')
			trace = true;
		else if (option == 'v')
			verify = true;
		else
			wrong_usage();
		if (option == 'n' && (tries < 1 || *end))
			wrong_usage();
	}
	for (int i = optind; i < argc; i++) {
		if (find_mode(argv[i]))
			continue;
		fprintf(stderr, "error: unknown mode %s; use one of the modes below\n", argv[i]);
		wrong_usage();
	}

	main_pid = getpid();
	before = implementation();
	if (!before)
		die("the kernel has one collapse_file() only; enable CONFIG_RUST_COLLAPSE_FILE");
	run_on(0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	if (shared == MAP_FAILED || sem_init(&shared->begin, 1, 0) || sem_init(&shared->end, 1, 0))
		die("no memory: %s", strerror(errno));
	if (trace)
		begin_trace();
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		bool named = false;

		mode = &modes[i];
		for (int at = optind; at < argc; at++)
			named |= !strcmp(argv[at], mode->name);
		/* A mode with processes takes long, so it runs only on request. */
		if (named || (optind == argc && !mode->processes))
			run(tries ?: mode->processes ? FEW_TRIES : DEFAULT_TRIES, verify);
	}
	if (trace)
		end_trace();
	use(before);
	return 0;
}
