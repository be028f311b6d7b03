/* test_spool_crash.c - the journal under kill -9 and damaged files.
 *
 * The program runs itself as `victim`: fibers on two workers put, update and remove messages as fast as they
 * can and write down in a file what they are about to do and what was acknowledged (one write(2) each, so a
 * kill loses nothing of it). The parent kills it after a while, or the victim kills itself at a fault point;
 * then the parent opens the spool and compares: what was acknowledged is there unless its removal was begun;
 * what was put together is there together or not at all, its key included, which stays when the messages go;
 * a removal with an acknowledged put of the same fiber behind it stays done; everything is byte for byte one
 * of the versions it had. The next victim goes on with the same spool. */
#include "fiber_check.h"

#include "base/fault.h"
#include "base/log.h"
#include "fiber/offload.h"
#include "spool/spool_journal_impl.h"
#include "spool_model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOON mono_after(dur_s(60))
#define N_FIBERS 8
#define N_EACH 4096 /* numbers a fiber has in one round */
#define N_ROUNDS 48
#define N_NUMBERS (N_ROUNDS * N_FIBERS * N_EACH)
#define SEGMENT_BYTES (384u << 10)
#define GROUP_MAX 6

static char dir[80], log_path[100];
static const char *self;

static struct spool *try_open(void)
{
	return spool_open_journal(&(struct spool_params){.name = STR("crash"),
							 .path = str_of(dir),
							 .is_flushed = true,
							 .segment_bytes = SEGMENT_BYTES});
}

/* ---- what is written down ---- */

enum event_kind { EV_PUT = 'p', EV_ACK = 'a', EV_UPDATE = 'u', EV_REMOVE = 'r' };
struct event_note {
	uint8_t kind, n; /* n: messages from number on, of one put */
	uint8_t fiber, has_key;
	uint32_t version; /* of the message that is updated */
	uint32_t number;  /* of the first message, and of the key */
};

/* ---- the victim ---- */

static struct victim {
	struct spool *sp;
	int log_fd;
	uint32_t round;
	uint32_t owned[N_FIBERS][N_EACH * 2]; /* numbers that are stored for sure */
	uint16_t version[N_FIBERS][N_EACH * 2];
	uint32_t n_owned[N_FIBERS];
} victim;

static void note_event(struct event_note e)
{
	CHECK(write(victim.log_fd, &e, sizeof e) == sizeof e);
}

static void note(unsigned f, enum event_kind kind, uint32_t number, uint16_t version, uint32_t n)
{
	note_event((struct event_note){(uint8_t)kind, (uint8_t)n, (uint8_t)f, false, version, number});
}

static void victim_put_with_key(unsigned f, uint32_t number, struct message **m, uint32_t n)
{
	struct buf answer = BUF_INIT;
	struct spool_key k = model_key(number, 0, wall_add(wall_now(), dur_s(86400)), &answer);
	note_event((struct event_note){EV_PUT, (uint8_t)n, (uint8_t)f, true, 0, number});
	CHECK(spool_put_with_key(victim.sp, m, n, &k, SOON) == 0);
	note_event((struct event_note){EV_ACK, (uint8_t)n, (uint8_t)f, true, 0, number});
	buf_fini(&answer);
}

static void victim_put(unsigned f, uint32_t number, uint32_t n, bool has_key)
{
	struct message *m[GROUP_MAX];
	for (uint32_t i = 0; i < n; i++)
		m[i] = model_message(number + i, 0, NULL);
	if (has_key) {
		victim_put_with_key(f, number, m, n);
	} else {
		note(f, EV_PUT, number, 0, n);
		CHECK(spool_put(victim.sp, m, n, SOON) == 0);
		note(f, EV_ACK, number, 0, n);
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = victim.n_owned[f]++;
		victim.owned[f][at] = number + i;
		victim.version[f][at] = 0;
		message_unref(m[i]);
	}
}

static void victim_change(unsigned f, uint64_t roll)
{
	uint32_t at = (uint32_t)(roll >> 16) % victim.n_owned[f], number = victim.owned[f][at];
	if (roll % 2 == 0) {
		struct uuid id = model_id(number);
		note(f, EV_REMOVE, number, 0, 1);
		spool_remove(victim.sp, &id);
		uint32_t last = --victim.n_owned[f];
		victim.owned[f][at] = victim.owned[f][last];
		victim.version[f][at] = victim.version[f][last];
		return;
	}
	struct message *m = model_message(number, ++victim.version[f][at], NULL);
	note(f, EV_UPDATE, number, m->n_attempts, 1);
	spool_update(victim.sp, m);
	message_unref(m);
}

static void victim_fiber(void *arg)
{
	unsigned f = (unsigned)(uintptr_t)arg;
	uint64_t roll = random_below(UINT64_MAX);
	uint32_t base = (victim.round * N_FIBERS + f) * N_EACH;
	for (uint32_t used = 0; used + GROUP_MAX <= N_EACH;) {
		roll = model_mix(roll + 1);
		uint32_t n = roll % 4 != 0 ? 1 : 1 + (uint32_t)(roll >> 8) % GROUP_MAX;
		victim_put(f, base + used, n, roll % 3 == 0);
		used += n;
		for (int i = 0; i < 4 && victim.n_owned[f] > 40; i++)
			victim_change(f, roll = model_mix(roll + 1));
	}
}

static void victim_adopt(struct message *m, void *arg)
{
	unsigned f = model_number(&m->id) % N_FIBERS;
	uint32_t at = victim.n_owned[f]++;
	CHECK(at < N_EACH);
	victim.owned[f][at] = model_number(&m->id);
	victim.version[f][at] = m->n_attempts;
	message_unref(m);
}

static void victim_enumerate(void *arg)
{
	CHECK(spool_enumerate(victim.sp, victim_adopt, NULL, SOON) == 0);
}

static int victim_main(char **argv)
{
	CHECK(fault_init_from_env() == 0);
	snprintf(dir, sizeof dir, "%s", argv[2]);
	victim.log_fd = open(argv[3], O_WRONLY | O_CREAT | O_APPEND, 0600);
	victim.round = (uint32_t)strtoul(argv[4], NULL, 10);
	CHECK(victim.log_fd >= 0);
	workers_start(2);
	offload_start(2);
	victim.sp = try_open();
	CHECK(victim.sp != NULL);
	worker_run(victim_enumerate, NULL);
	for (uintptr_t f = 0; f < N_FIBERS; f++)
		worker_start_fiber(worker_get((unsigned)f % 2), "victim", victim_fiber, (void *)f);
	for (;;)
		pause();
	return 0;
}

/* ---- the parent: what must be there ---- */

enum { IS_BEGUN = 1, IS_ACKED = 2, IS_REMOVING = 4, IS_REMOVED = 8 };
static struct state {
	uint8_t flags, n_group;
	uint16_t v_min, v_max;
	uint32_t group;		    /* number of the first of its put */
	bool has_key, is_key_acked; /* it begins a put with a key */
} * state;

static struct found {
	struct spool *sp;
	uint8_t *is_there, *has_key;
	uint64_t n, n_keys;
} found;

static void read_notes(void)
{
	struct event_note e;
	uint32_t *removing = calloc(N_NUMBERS, sizeof *removing), n_removing[N_FIBERS] = {0};
	uint32_t *of[N_FIBERS];
	int fd = open(log_path, O_RDONLY);
	for (unsigned f = 0; f < N_FIBERS; f++)
		of[f] = removing + (size_t)f * N_ROUNDS * N_EACH;
	while (fd >= 0 && read(fd, &e, sizeof e) == sizeof e) {
		uint32_t first = e.number;
		CHECK(first + e.n <= N_NUMBERS && e.n <= GROUP_MAX);
		for (uint32_t i = 0; i < e.n; i++) {
			struct state *s = &state[first + i];
			if (e.kind == EV_PUT)
				*s = (struct state){IS_BEGUN, e.n, 0, 0, first};
			else if (e.kind == EV_ACK)
				s->flags |= IS_ACKED;
			else if (e.kind == EV_UPDATE)
				s->v_max = (uint16_t)e.version;
			else
				s->flags |= IS_REMOVING;
		}
		if (e.has_key)
			*(e.kind == EV_PUT ? &state[first].has_key : &state[first].is_key_acked) = true;
		unsigned f = e.fiber;
		CHECK(f < N_FIBERS);
		if (e.kind == EV_ACK) {
			for (uint32_t i = 0; i < n_removing[f]; i++)
				state[of[f][i]].flags |= IS_REMOVED;
			n_removing[f] = 0;
		} else if (e.kind == EV_REMOVE) {
			of[f][n_removing[f]++] = first;
		}
	}
	if (fd >= 0)
		close(fd);
	unlink(log_path);
	free(removing);
}

static void find_one(struct message *m, void *arg)
{
	uint32_t number = model_number(&m->id);
	CHECK(number < N_NUMBERS && (state[number].flags & IS_BEGUN) != 0);
	const struct state *s = &state[number];
	CHECK((s->flags & IS_REMOVED) == 0);
	CHECK(m->n_attempts >= s->v_min && m->n_attempts <= s->v_max);
	CHECK(model_differs(m, number) == NULL);
	found.is_there[number] = 1;
	found.n++;
	message_unref(m);
}

static void find_main(void *arg)
{
	CHECK(spool_enumerate(found.sp, find_one, NULL, SOON) == 0);
	for (uint32_t i = 0; i < N_NUMBERS; i++) {
		if (!found.is_there[i])
			continue;
		struct uuid id = model_id(i);
		struct message *m = spool_load(found.sp, &id, SOON);
		CHECK(m != NULL && model_differs(m, i) == NULL);
		state[i].v_min = m->n_attempts;
		message_unref(m);
	}
	for (uint32_t i = 0; i < N_NUMBERS; i++) {
		int version = state[i].has_key ? model_key_look(found.sp, i, SOON) : -1;
		CHECK(version == 0 || version == -1);
		found.has_key[i] = version == 0;
		found.n_keys += version == 0;
	}
}

static void compare_key(uint32_t i)
{
	struct state *s = &state[i];
	bool is_there = found.has_key[i];
	if (s->is_key_acked && !is_there) {
		fprintf(stderr, "key %u was acknowledged and is lost\n", i);
		abort();
	}
	if ((s->flags & (IS_ACKED | IS_REMOVED)) == 0 && is_there != (bool)found.is_there[i]) {
		fprintf(stderr, "key %u is %sthere, the messages of its put are not so\n", i,
			is_there ? "" : "not ");
		abort();
	}
	s->has_key = s->is_key_acked = is_there;
}

static void compare(void)
{
	found = (struct found){
		.sp = try_open(), .is_there = calloc(N_NUMBERS, 1), .has_key = calloc(N_NUMBERS, 1)};
	CHECK(found.sp != NULL);
	worker_run(find_main, NULL);
	struct spool_stats st;
	spool_get_stats(found.sp, &st);
	CHECK(st.n_damaged == 0);
	CHECK(st.n_messages == found.n && st.n_keys == found.n_keys);
	spool_close(found.sp);
	for (uint32_t i = 0; i < N_NUMBERS; i++) {
		if (state[i].has_key)
			compare_key(i);
	}
	for (uint32_t i = 0; i < N_NUMBERS; i++) {
		struct state *s = &state[i];
		if ((s->flags & IS_BEGUN) == 0)
			continue;
		bool is_there = found.is_there[i];
		if ((s->flags & IS_ACKED) != 0 && (s->flags & IS_REMOVING) == 0 && !is_there) {
			fprintf(stderr, "message %u was acknowledged and is lost\n", i);
			abort();
		}
		if ((s->flags & (IS_ACKED | IS_REMOVED)) == 0 && is_there != (bool)found.is_there[s->group]) {
			fprintf(stderr, "message %u is %sthere, message %u of the same put is not so\n", i,
				is_there ? "" : "not ", s->group);
			abort();
		}
	}
	/* What was open is settled now: recovery made it durable one way or the other. */
	for (uint32_t i = 0; i < N_NUMBERS; i++) {
		struct state *s = &state[i];
		if ((s->flags & IS_BEGUN) == 0)
			continue;
		s->flags = found.is_there[i] ? IS_BEGUN | IS_ACKED : IS_BEGUN | IS_REMOVED;
		s->v_max = s->v_min;
	}
	free(found.is_there);
	free(found.has_key);
}

/* Runs a victim until it is killed. False when it did not come to it (a fault point that was not passed often
 * enough). */
static bool run_victim(int round, const char *faults, dur_t life)
{
	char number[16];
	snprintf(number, sizeof number, "%d", round);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		if (faults != NULL)
			setenv("CIRRUS_FAULTS", faults, 1);
		execl(self, self, "victim", dir, log_path, number, (char *)NULL);
		_exit(127);
	}
	int status = 0;
	mono_t until = mono_after(life);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (mono_is_past(until)) {
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
			return faults == NULL;
		}
		usleep(1000); /* polls a process, which has no better way to be waited for with a deadline */
	}
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	return true;
}

static void test_random_kills(void **s)
{
	int n = CHECK_IS_SANITIZED ? 10 : 20;
	for (int round = 0; round < n; round++) {
		run_victim(round, NULL, dur_ms(20 + (int64_t)random_below(CHECK_IS_SANITIZED ? 700 : 300)));
		read_notes();
		compare();
	}
	assert_true(found.n_keys > 20);
}

#ifdef CIRRUS_FAULTS
static void test_kills_at_fault_points(void **s)
{
	static const char *const spec[] = {
		"spool_write=kill:1",	"spool_write=kill:40", "spool_write=kill:333", "spool_commit=kill:1",
		"spool_commit=kill:77", "spool_sync=kill:2",   "spool_sync=kill:150",  "spool_rotate=kill:1",
		"spool_rotate=kill:2",	"spool_rotate=kill:9", "spool_alloc=kill:50",  "spool_remove=kill:1",
		"spool_remove=kill:3",	"spool_open=kill:1",   "spool_open=kill:2",
	};
	int n_killed = 0;
	for (int i = 0; i < (int)ARRAY_SIZE(spec); i++) {
		bool is_killed = run_victim(24 + i, spec[i], dur_s(10));
		n_killed += is_killed;
		if (!is_killed)
			print_message("%s: not reached\n", spec[i]);
		read_notes();
		compare();
	}
	assert_true(n_killed >= (int)ARRAY_SIZE(spec) - 2);
}
#endif

/* ---- damaged files ---- */

#define N_DAMAGE 60
#define N_LAST 3 /* of them in one put, the last */

/* The content of the nth segment. */
static char *segment_file(int nth, char path[static 160], size_t *n)
{
	struct dirent **list;
	int n_list = scandir(dir, &list, NULL, alphasort), seen = 0;
	char *p = NULL;
	path[0] = 0;
	for (int i = 0; i < n_list; i++) {
		size_t len = strlen(list[i]->d_name);
		if (len > 8 && strcmp(list[i]->d_name + len - 8, ".journal") == 0 && seen++ == nth)
			snprintf(path, 160, "%s/%s", dir, list[i]->d_name);
		free(list[i]);
	}
	free(list);
	CHECK(path[0] != 0);
	int fd = open(path, O_RDONLY);
	struct stat st;
	CHECK(fd >= 0 && fstat(fd, &st) == 0);
	p = malloc((size_t)st.st_size);
	*n = (size_t)st.st_size;
	CHECK(pread(fd, p, *n, 0) == (ssize_t)*n);
	close(fd);
	return p;
}

static void write_file(const char *path, const char *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0 && write(fd, p, n) == (ssize_t)n);
	close(fd);
}

/* Every fourth message came with a key, and so did the last put. */
static bool has_key(uint32_t number)
{
	return number % 4 == 0 ? number < N_DAMAGE - N_LAST : number == N_DAMAGE - N_LAST;
}

static void fill_put_with_key(struct spool *sp, uint32_t number, struct message **m, uint32_t n)
{
	struct buf answer = BUF_INIT;
	struct spool_key k = model_key(number, 0, wall_add(wall_now(), dur_s(86400)), &answer);
	CHECK(spool_put_with_key(sp, m, n, &k, SOON) == 0);
	buf_fini(&answer);
}

static void fill_main(void *arg)
{
	for (uint32_t i = 0; i < N_DAMAGE - N_LAST; i++) {
		struct message *m = model_message(i, 0, NULL);
		if (has_key(i))
			fill_put_with_key(arg, i, &m, 1);
		else
			CHECK(spool_put(arg, &m, 1, SOON) == 0);
		message_unref(m);
	}
	struct message *last[N_LAST];
	for (uint32_t i = 0; i < N_LAST; i++)
		last[i] = model_message(N_DAMAGE - N_LAST + i, 0, NULL);
	fill_put_with_key(arg, N_DAMAGE - N_LAST, last, N_LAST);
	for (uint32_t i = 0; i < N_LAST; i++)
		message_unref(last[i]);
}

/* A spool with N_DAMAGE messages in one segment. */
static char *fill(char path[static 160], size_t *n)
{
	struct spool *sp = spool_open_journal(
		&(struct spool_params){.name = STR("crash"), .path = str_of(dir), .is_flushed = true});
	CHECK(sp != NULL);
	worker_run(fill_main, sp);
	spool_close(sp);
	return segment_file(0, path, n);
}

static struct survey {
	struct spool *sp;
	bool is_there[N_DAMAGE], is_whole[N_DAMAGE], has_key[N_DAMAGE];
	uint32_t n_there, n_whole, n_keys;
	uint64_t n_damaged;
} survey;

static void survey_see(struct message *m, void *arg)
{
	uint32_t i = model_number(&m->id);
	CHECK(i < N_DAMAGE && model_differs(m, i) == NULL);
	survey.is_there[i] = true;
	survey.n_there++;
	if (spool_load_body(survey.sp, m, SOON) == 0) {
		CHECK(model_differs(m, i) == NULL);
		survey.is_whole[i] = true;
		survey.n_whole++;
	} else {
		CHECK(err_is(ERR_CORRUPT));
		err_clear();
	}
	message_unref(m);
}

static void survey_main(void *arg)
{
	CHECK(spool_enumerate(survey.sp, survey_see, NULL, SOON) == 0);
	for (uint32_t i = 0; i < N_DAMAGE; i++) {
		int version = model_key_look(survey.sp, i, SOON);
		CHECK(version == -1 || (version == 0 && has_key(i)));
		survey.has_key[i] = version == 0;
		survey.n_keys += version == 0;
	}
}

/* What a spool makes of this content of its one segment. */
static void look(const char *path, const char *p, size_t n)
{
	model_remove_dir(dir);
	CHECK(mkdir(dir, 0700) == 0);
	write_file(path, p, n);
	survey = (struct survey){.sp = try_open()};
	CHECK(survey.sp != NULL);
	worker_run(survey_main, NULL);
	struct spool_stats st;
	spool_get_stats(survey.sp, &st);
	survey.n_damaged = st.n_damaged;
	spool_close(survey.sp);
}

/* And opened once more, it is the same: nothing dead comes back from what was repaired. */
static void look_again(bool is_damaged)
{
	struct survey first = survey;
	survey = (struct survey){.sp = try_open()};
	CHECK(survey.sp != NULL);
	worker_run(survey_main, NULL);
	struct spool_stats st;
	spool_get_stats(survey.sp, &st);
	CHECK(survey.n_there == first.n_there && survey.n_whole == first.n_whole &&
	      survey.n_keys == first.n_keys);
	CHECK(is_damaged || st.n_damaged == 0);
	spool_close(survey.sp);
}

/* The frames of the file, and which message each belongs to. */
struct frame_at {
	size_t from, to;
	uint8_t type;
	uint32_t number; /* N_DAMAGE: none */
};
static struct frame_at frames[N_DAMAGE * 4];
static size_t n_frames, first_body, last_key; /* places in frames; of the last put */
static uint32_t n_keys;
static const uint32_t n_keys_before = (N_DAMAGE - N_LAST + 3) / 4; /* the last put */

static void find_frames(const char *p, size_t n)
{
	n_frames = n_keys = 0;
	for (size_t at = JOURNAL_HEAD_BYTES; at < n;) {
		struct frame_head h;
		memcpy(&h, p + at, sizeof h);
		CHECK(h.magic == JOURNAL_FRAME_MAGIC && n_frames < ARRAY_SIZE(frames));
		struct frame_at *f = &frames[n_frames];
		*f = (struct frame_at){at, at + frame_bytes(h.n_payload), h.type, N_DAMAGE};
		if (h.type == FRAME_META) {
			f->number = model_number(&h.id);
			frames[n_frames - 1].number = f->number; /* its body */
			if (f->number == N_DAMAGE - N_LAST)
				first_body = n_frames - 1;
		} else if (h.type == FRAME_KEY) {
			f->number = model_number(&h.id);
			last_key = n_frames;
			n_keys++;
		}
		at = f->to;
		n_frames++;
	}
	CHECK(last_key > first_body && n_keys == n_keys_before + 1);
}

static void test_torn_tails(void **s)
{
	char path[160];
	size_t n;
	char *p = fill(path, &n);
	find_frames(p, n);
	size_t a = frames[first_body].from, mid = frames[first_body + 2].from, m = frames[last_key].from,
	       b = frames[last_key].to;
	/* cut anywhere in the last put: it is gone as a whole */
	const size_t cut[] = {a, a + 1, a + 30, a + 56, a + 57, mid - 1, mid,	mid + 1, mid + 70, m - 1,
			      m, m + 3, m + 56, b - 8,	b - 1,	b,	 b + 1, b + 55,	 n - 1};
	for (size_t i = 0; i < ARRAY_SIZE(cut); i++) {
		look(path, p, cut[i]);
		CHECK(survey.n_there == N_DAMAGE - (cut[i] < b ? N_LAST : 0) &&
		      survey.n_whole == survey.n_there && survey.n_damaged == 0);
		CHECK(survey.n_keys == n_keys_before + (cut[i] >= b));
		look_again(false);
	}
	/* garbage after the end, of several kinds */
	char *q = malloc(n + 70000);
	memcpy(q, p, n);
	for (size_t extra = 1; extra < 70000; extra = extra * 5 + 3) {
		model_fill(q + n, extra, extra);
		look(path, q, n + extra);
		CHECK(survey.n_whole == N_DAMAGE && survey.n_keys == n_keys && survey.n_damaged == 0);
		memset(q + n, 0, extra);
		look(path, q, n + extra);
		CHECK(survey.n_whole == N_DAMAGE && survey.n_keys == n_keys && survey.n_damaged == 0);
		memcpy(q + n, p + JOURNAL_HEAD_BYTES,
		       extra < n - JOURNAL_HEAD_BYTES ? extra : n - JOURNAL_HEAD_BYTES);
		look(path, q, n + extra); /* frames that were valid elsewhere */
		CHECK(survey.n_whole == N_DAMAGE && survey.n_keys == n_keys && survey.n_damaged == 0);
		look_again(false);
	}
	/* a page of the last put did not reach the disk, later ones did */
	memcpy(q, p, n);
	memset(q + a + 60, 0, (mid - a - 60) / 4);
	look(path, q, b);
	CHECK(survey.n_there == N_DAMAGE - N_LAST && survey.n_whole == N_DAMAGE - N_LAST &&
	      survey.n_keys == n_keys_before);
	look_again(false);
	memcpy(q, p, n);
	memset(q + a, 0, 64);
	look(path, q, b);
	CHECK(survey.n_there == N_DAMAGE - N_LAST && survey.n_whole == N_DAMAGE - N_LAST &&
	      survey.n_keys == n_keys_before);
	look_again(true);
	free(q);
	free(p);
}

static void check_flip(const struct frame_at *f)
{
	bool is_key = f->type == FRAME_KEY;
	uint32_t hit = is_key ? N_DAMAGE : f->number, hit_key = is_key ? f->number : N_DAMAGE;
	CHECK(survey.n_damaged <= 2);
	for (uint32_t i = 0; i < N_DAMAGE; i++) { /* only what was hit is affected */
		CHECK(i == hit || (survey.is_there[i] && survey.is_whole[i]));
		CHECK(i == hit_key || survey.has_key[i] == has_key(i));
	}
	if (survey.n_whole == N_DAMAGE && survey.n_keys == n_keys)
		return; /* padding, or a mark */
	CHECK(survey.n_damaged >= 1);
	CHECK(is_key ? !survey.has_key[hit_key] : survey.is_there[hit] == (f->type == FRAME_BODY));
}

static void test_bit_flips(void **s)
{
	char path[160];
	size_t n, n_hurt = 0, n_keys_hurt = 0;
	char *p = fill(path, &n);
	find_frames(p, n);
	for (size_t i = 0; i < (CHECK_IS_SANITIZED ? 150 : 400); i++) {
		uint64_t r = model_mix(i);
		const struct frame_at *f = &frames[r % n_frames];
		size_t at = i % 3 == 0 ? f->from + (r >> 20) % 56 : f->from + (r >> 20) % (f->to - f->from);
		p[at] ^= (char)(1 << (r >> 60) % 8);
		look(path, p, n);
		p[at] ^= (char)(1 << (r >> 60) % 8);
		check_flip(f);
		n_hurt += survey.n_whole < N_DAMAGE;
		n_keys_hurt += survey.n_keys < n_keys;
		if (i % 8 == 0)
			look_again(true);
	}
	assert_true(n_hurt > 50 && n_keys_hurt > 5);
	/* a header copy, then both */
	p[17] ^= 4;
	look(path, p, n);
	CHECK(survey.n_whole == N_DAMAGE && survey.n_damaged == 1);
	p[JOURNAL_HEAD_BYTES / 2 + 30] ^= 4;
	model_remove_dir(dir);
	CHECK(mkdir(dir, 0700) == 0);
	write_file(path, p, n);
	assert_null(try_open());
	assert_true(err_is(ERR_CORRUPT));
	assert_non_null(strstr(err_text(), path));
	err_clear();
	free(p);
}

static int setup(void **s)
{
	model_remove_dir(dir);
	memset(state, 0, N_NUMBERS * sizeof *state);
	return 0;
}

static int group_setup(void **s)
{
	snprintf(dir, sizeof dir, "/tmp/cirrus-crash-%d", (int)getpid());
	snprintf(log_path, sizeof log_path, "%s.log", dir);
	state = calloc(N_NUMBERS, sizeof *state);
	workers_start(1);
	offload_start(2);
	return log_set_filter(STR("off")); /* what is reported is counted as well */
}

static int group_teardown(void **s)
{
	model_remove_dir(dir);
	workers_stop(mono_after(dur_s(20)));
	offload_stop();
	free(state);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "victim") == 0)
		return victim_main(argv);
	self = argv[0];
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_random_kills, setup),
#ifdef CIRRUS_FAULTS
		cmocka_unit_test_setup(test_kills_at_fault_points, setup),
#endif
		cmocka_unit_test_setup(test_torn_tails, setup),
		cmocka_unit_test_setup(test_bit_flips, setup),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
