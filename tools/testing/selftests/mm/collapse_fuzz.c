// SPDX-License-Identifier: GPL-2.0
/*
 * Compare collapse_file() in C and in Rust with random operations.
 *
 * A case is a random history: a list of operations on a file, some of which are collapses.
 * The fuzzer plays it twice, with new files, once for each implementation. The observable
 * state of the two files must be equal. If it differs, the fuzzer minimises the history and
 * prints it in the format of -r.
 *
 * Reclaim, other CPUs and the disk also affect the pages. A difference therefore only counts
 * if several tries with C are alike, and none of them is like a try with Rust.
 *
 * With "-m concurrent", many threads use one file while the implementation changes. There is
 * nothing to compare then, but no data may be lost.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "collapse_file_util.h"
#include "collapse_fuzz.h"

#define MAX_DIFFERENCES	5

const char * const impls[] = { [C] = "c", [RUST] = "rust" };
const char *disk;
char base_dir[64], cgroup[128];
bool stop;
bool sabotage;
bool ask_for_trouble;

unsigned int have;
static char old_cgroup[256];
static const char *self, *implementation_before;

static void clean_up(void);

__noreturn void bail_out(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	clean_up();
	exit(KSFT_FAIL);
}

double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void print_reproducer(const struct history *history, FILE *out)
{
	fprintf(out, "# reproduce: %s", self);
	if (disk)
		fprintf(out, " -d %s", disk);
	fputs(" -r \"", out);
	print_history(history, out);
	fputs("\"\n", out);
}

/*
 * Statistics.
 */
static struct {
	unsigned long cases, differences, transient, nr_results;
	struct {
		char name[48];
		unsigned long nr;
	} results[48];
} stats;

static void count(const struct outcome *outcome)
{
	const char *name = outcome->result;
	unsigned long i;

	if (outcome->events <= 0)
		name = outcome->err ? "not_called" : "already_huge";
	else if (!outcome->err)
		name = "succeeded";
	for (i = 0; i < stats.nr_results; i++)
		if (!strcmp(stats.results[i].name, name))
			break;
	if (i == stats.nr_results) {
		snprintf(stats.results[i].name, sizeof(stats.results[i].name), "%s", name);
		stats.nr_results++;
	}
	stats.results[i].nr++;
}

static void print_stats(void)
{
	for (unsigned long i = 0; i < stats.nr_results; i++)
		printf("# fuzz-result: %s=%lu\n", stats.results[i].name, stats.results[i].nr);
	printf("# fuzz: cases=%lu differences=%lu transient=%lu\n", stats.cases,
	       stats.differences, stats.transient);
}

/* Log the seed to the console, so that it is known if the kernel crashes. */
void tell_kernel(const char *what, unsigned long seed)
{
	char text[64];

	snprintf(text, sizeof(text), "<6>collapse_fuzz: %s %lu\n", what, seed);
	write_text("/dev/kmsg", text);
}

static void report(struct history *history, uint64_t seed)
{
	stats.differences++;
	printf("# difference: seed %lu: %s\n", (unsigned long)seed, difference);
	print_reproducer(history, stdout);
	fflush(stdout);
	minimise(history);
	/* The last difference may belong to a history that was too short, so play this one. */
	if (is_by_chance(history))
		printf("# not reproduced with this history:\n");
	printf("# minimised: %s\n", difference);
	print_reproducer(history, stdout);
}

static void fuzz_case(uint64_t seed)
{
	char first[sizeof(difference)];
	struct history history;

	tell_kernel("seed", seed);
	generate(&history, seed);
	stats.cases++;
	if (!play_both(&history)) {
		for (int i = 0; i < seen[C].nr_collapses; i++)
			count(&seen[C].outcomes[i]);
		return;
	}
	memcpy(first, difference, sizeof(first));
	if (is_by_chance(&history)) {
		stats.transient++;
		printf("# transient: seed %lu: %s\n", (unsigned long)seed, first);
	} else {
		report(&history, seed);
	}
}

static bool fuzz(uint64_t seed, unsigned long cases, unsigned long seconds)
{
	double start = now(), told = start;

	for (unsigned long i = 0; i < cases && stats.differences < MAX_DIFFERENCES && !stop; i++) {
		if (seconds && now() - start > seconds)
			break;
		fuzz_case(seed + i);
		if (now() - told > 10) {
			told = now();
			printf("# %lu cases, %.1f/s, %lu differences, %lu transient\n", stats.cases,
			       stats.cases / (told - start), stats.differences, stats.transient);
		}
		fflush(stdout);
	}
	print_stats();
	return !stats.differences && nothing_leaked();
}

static bool replay(const char *words)
{
	struct history history;
	char text[100];
	int times = 0;

	if (!parse_history(&history, words)) {
		printf("# not a history: %s\n", words);
		return false;
	}
	for (int tries = 0; tries < 3 && !stop; tries++) {
		bool different = play_both(&history);

		for (int i = 0; i < 2 * seen[C].nr_collapses; i++) {
			print_outcome(text, sizeof(text), &seen[i % 2].outcomes[i / 2]);
			printf("# %s: collapse %d: %s\n", impls[i % 2], i / 2 + 1, text);
		}
		printf("# %s\n", different ? difference : "no difference");
		times += different;
	}
	return !times;
}

/*
 * -T: inject a failure in Rust only. The fuzzer must find the difference and minimise the
 * history. The difference must come back after the history is printed and parsed.
 */
static bool test_self(uint64_t seed)
{
	struct history history, again;
	char *text;
	int nr;

	/*
	 * Find a history that makes no difference, and whose first collapse succeeds. A child or a
	 * concurrent operation could prevent the injected failure.
	 */
	do {
		generate(&history, seed++);
	} while (history.nr < 8 || has_op(&history, "child") || has_op(&history, "meanwhile") ||
		 play_both(&history) || seen[C].outcomes[0].err ||
		 seen[C].outcomes[0].events != 1 || play_both(&history));
	nr = history.nr;
	sabotage = true;
	if (!play_both(&history) || is_by_chance(&history)) {
		printf("# the difference was not found\n");
		return false;
	}
	printf("# %s\n", difference);
	minimise(&history);
	text = history_text(&history);
	printf("# %d operations, minimised: %s\n", nr, text);
	if (history.nr >= nr || !parse_history(&again, text) ||
	    strcmp(text, history_text(&again))) {
		printf("# the history is not shorter, or changes when it is printed and parsed\n");
		return false;
	}
	if (!play_both(&again)) {
		printf("# the difference did not come back\n");
		return false;
	}
	sabotage = false;
	return !play_both(&again);
}

/*
 * Prepare the machine, and undo that.
 */
static bool mount_tmpfs(int kind)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", base_dir, kinds[kind].name);
	return !mkdir(path, 0700) && !mount("none", path, "tmpfs", 0, kinds[kind].mount);
}

static void enter_cgroup(void)
{
	char path[160], line[200];
	FILE *file = fopen("/proc/self/cgroup", "r");

	snprintf(path, sizeof(path), "%s/cgroup", base_dir);
	if (mkdir(path, 0700) || mount("none", path, "cgroup2", 0, NULL))
		goto out;
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, "0::", 3)) {
			line[strcspn(line, "\n")] = '\0';
			snprintf(old_cgroup, sizeof(old_cgroup), "%.60s%.150s/cgroup.procs", path,
				 line + 3);
		}
	snprintf(line, sizeof(line), "%.150s/cgroup.subtree_control", path);
	write_text(line, "+memory");
	snprintf(cgroup, sizeof(cgroup), "%.90s/collapse_fuzz.%d", path, getpid());
	snprintf(line, sizeof(line), "%.150s/cgroup.procs", cgroup);
	if (mkdir(cgroup, 0700) || write_text(line, "0")) {
		rmdir(cgroup);
		cgroup[0] = '\0';
	}
	if (cgroup[0]) {
		snprintf(path, sizeof(path), "%.120s/memory.stat", cgroup);
		if (access(path, R_OK))
			cgroup[0] = '\0';
	}
out:
	if (file)
		fclose(file);
	if (cgroup[0])
		have |= LIMITS;
	else
		printf("# no cgroup2 with memory: no limits, and no memory.stat\n");
}

static void clean_up(void)
{
	inject("off");
	if (implementation_before)
		choose_implementation(implementation_before);
	trace_end();
	if (cgroup[0]) {
		write_text(old_cgroup, "0");
		rmdir(cgroup);
	}
	if (base_dir[0]) {
		umount2(base_dir, MNT_DETACH);
		rmdir(base_dir);
	}
	fflush(stdout);
}

static void on_signal(__maybe_unused int signal)
{
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
}

static __noreturn void skip(const char *why)
{
	clean_up();
	ksft_exit_skip("%s\n", why);
}

static void learn_failures(void)
{
	have |= INJECTS;
	for (size_t i = 0; i < NR_FAILURES; i++) {
		int err = inject("%s fail", failures[i].function);

		if (err) {
			printf("# %s cannot fail: %s\n", failures[i].function, strerror(err));
			failures[i].weight = 0;
		}
	}
	inject("off");
}

static void learn_what_there_is(void)
{
	if (read_number("/proc/meminfo", "SwapTotal:") > 0)
		have |= SWAPS;
	else
		printf("# no swap: nothing is paged out\n");
	if (inject_available())
		learn_failures();
	else
		printf("# no collapse_file_inject: no failures are injected\n");
	if (!access("/sys/devices/system/node/node1", F_OK))
		have |= TWO_NODES;
	else
		printf("# one node: nothing is migrated\n");
	if (!access(SPLIT, W_OK))
		have |= SPLITS;
	if (!access(UNPOISON, W_OK))
		have |= POISONS;
	else
		printf("# no hwpoison-inject: no memory fails\n");
	if (!access(THP "hugepages-64kB/shmem_enabled", W_OK))
		have |= KNOBS;
}

/* Keep the pages of the program mapped, so that the counters do not depend on them. */
static void keep_program_mapped(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[256], execute;

	/* Map all pages, and copy the writable ones. */
	mlockall(MCL_CURRENT);
	munlockall();
	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx r-%c", &start, &end, &execute) == 3 && strchr(line, '/'))
			mlock((void *)start, end - start);
	if (maps)
		fclose(maps);
}

static void prepare(void)
{
	struct sigaction action = { .sa_handler = on_bus, .sa_flags = SA_NODEFER };
	cpu_set_t cpus;
	int uffd;

	ksft_print_header();
	if (geteuid())
		skip("not root");
	implementation_before = implementation();
	if (!implementation_before)
		skip("the kernel has one implementation");
	uffd = open_sigbus_uffd();
	if (uffd < 0)
		skip("no userfaultfd with the features needed");
	close(uffd);
	if (!trace_begin())
		skip("no tracing");
	snprintf(base_dir, sizeof(base_dir), "/tmp/collapse_fuzz.XXXXXX");
	if (!mkdtemp(base_dir) || mount("none", base_dir, "tmpfs", 0, NULL))
		bail_out(base_dir);
	for (int kind = 0; kind < NR_KINDS; kind++)
		if (kinds[kind].mount && !mount_tmpfs(kind))
			bail_out(kinds[kind].name);
	enter_cgroup();
	learn_what_there_is();
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	action = (struct sigaction) { .sa_handler = on_signal };
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	/* Run on one CPU, because LRU batches and page allocation depend on the CPU. */
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	keep_program_mapped();
	memset(buffer, 'x', sizeof(buffer));
	count_from_here();
}

static __noreturn void wrong_usage(void)
{
	fprintf(stderr,
		"usage: %s [-c CASES] [-s SEED] [-t SECONDS] [-d DIR] [-m concurrent | -r HISTORY | -T] [-x]\n"
		"  -c CASES       number of cases, or of rounds (200)\n"
		"  -s SEED        seed of the first case; each further one adds 1 (the time)\n"
		"  -t SECONDS     stop after that time (no limit)\n"
		"  -d DIR         also use regular files, in DIR\n"
		"  -m concurrent  use one file with many threads, instead of comparing two files\n"
		"  -r HISTORY     play a history, in the format printed for a difference\n"
		"  -T             test that the fuzzer finds a difference\n"
		"  -x             include operations that crash or hang a kernel without fixes\n",
		self);
	exit(2);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (end == text || *end)
		wrong_usage();
	return value;
}

int main(int argc, char **argv)
{
	unsigned long cases = 200, seconds = 0;
	uint64_t seed = time(NULL);
	const char *history = NULL;
	bool self_test = false, concurrent = false, good;
	int option;

	self = argv[0];
	while ((option = getopt(argc, argv, "c:s:t:d:r:m:xT")) != -1) {
		switch (option) {
		case 'c':
			cases = number(optarg);
			break;
		case 's':
			seed = number(optarg);
			break;
		case 't':
			seconds = number(optarg);
			break;
		case 'd':
			disk = optarg;
			break;
		case 'r':
			history = optarg;
			break;
		case 'm':
			if (strcmp(optarg, "concurrent"))
				wrong_usage();
			concurrent = true;
			break;
		case 'x':
			ask_for_trouble = true;
			break;
		case 'T':
			self_test = true;
			break;
		default:
			wrong_usage();
		}
	}
	if (optind < argc)
		wrong_usage();
	prepare();
	ksft_set_plan(1);
	printf("# seed %lu\n", (unsigned long)seed);
	if (history)
		good = replay(history);
	else if (self_test)
		good = test_self(seed);
	else if (concurrent)
		good = fuzz_concurrently(seed, cases, seconds, disk);
	else
		good = fuzz(seed, cases, seconds);
	clean_up();
	ksft_test_result(good, "collapse_fuzz\n");
	ksft_finished();
}
