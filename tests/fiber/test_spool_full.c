/* test_spool_full.c - the journal on a disk that is full: it says so, keeps what it has, and takes mail again
 * as soon as there is room, however that comes about. */
#include "spool_place.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void full_main(void *arg)
{
	struct spool *sp = arg;
	struct body *b = body_alloc(50000);
	model_fill(b->p, b->n_bytes, 1);
	uint32_t n = 0;
	for (;; n++) {
		struct message *m = model_message(n + 1, 0, b);
		int rc = spool_put(sp, &m, 1, SOON);
		CHECK(m->is_spooled == (rc == 0));
		message_unref(m);
		if (rc != 0)
			break;
		CHECK(n < 1000);
	}
	CHECK(err_is(ERR_SPOOL_FULL));
	err_clear();
	CHECK(n > 50);
	CHECK(spool_health(sp) != NULL && strstr(spool_health(sp), "no space") != NULL);
	CHECK(stats_of(sp).n_messages == n);
	for (uint32_t i = 1; i <= n; i++) {
		struct uuid id = model_id(i);
		if (i % 10 != 0)
			spool_remove(sp, &id);
	}
	while (spool_health(sp) != NULL) /* it finds out by itself */
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
	put_numbers(sp, 5001, 20);
	CHECK(stats_of(sp).n_messages == n / 10 + 20);
	body_unref(b);
}

static void mount_small(const char *size)
{
	assert_true(mkdir(dir, 0700) == 0 || errno == EEXIST);
	if (mount("tmpfs", dir, "tmpfs", 0, size) != 0) {
		print_message("no tmpfs: %s\n", strerror(errno));
		skip();
	}
}

static void test_disk_full(void **state)
{
	mount_small("size=6m");
	struct spool *sp = open_spool(512 << 10);
	worker_run(full_main, sp);
	uint64_t n = stats_of(sp).n_messages;
	spool_close(sp);
	sp = open_spool(512 << 10);
	assert_int_equal(stats_of(sp).n_messages, n);
	assert_int_equal(stats_of(sp).n_damaged, 0);
	spool_close(sp);
	assert_int_equal(umount(dir), 0);
}

/* Puts until there is no room; how many there are. */
static uint32_t fill_up(struct spool *sp, uint32_t first, size_t n_body)
{
	struct body *b = body_alloc(n_body);
	model_fill(b->p, b->n_bytes, first);
	uint32_t n = 0;
	for (int rc = 0; rc == 0; n += rc == 0) {
		struct message *m = model_message(first + n, 0, b);
		rc = spool_put(sp, &m, 1, SOON);
		message_unref(m);
		CHECK(n < 20000);
	}
	CHECK(err_is(ERR_SPOOL_FULL));
	err_clear();
	body_unref(b);
	return n;
}

/* Somebody else's file takes the room that is left. */
static void fill_disk(char *path, size_t n_path)
{
	snprintf(path, n_path, "%s/ballast", dir);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	CHECK(fd >= 0);
	off_t n_ballast = 0;
	while (posix_fallocate(fd, n_ballast, 4096) == 0)
		n_ballast += 4096;
	close(fd);
}

static void remove_numbers(struct spool *sp, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++) {
		struct uuid id = model_id(i);
		spool_remove(sp, &id);
	}
}

static void wait_healthy(struct spool *sp)
{
	for (int i = 0; spool_health(sp) != NULL; i++) {
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
		CHECK(i < 3000);
	}
}

/* All is in the one segment, which is larger than the disk. */
static void full_segment_main(void *arg)
{
	struct spool *sp = arg;
	for (uint32_t round = 0; round < 3; round++) {
		uint32_t first = round * 1000 + 1, n = fill_up(sp, first, 50000);
		CHECK(n > 50);
		remove_numbers(sp, first, n - 2); /* two live on, and are to be moved */
		wait_healthy(sp);
		CHECK(stats_of(sp).n_messages == 2 * (round + 1));
	}
}

static void test_disk_full_of_one_segment(void **state)
{
	mount_small("size=24m");
	struct spool *sp = open_spool(64 << 20);
	worker_run(full_segment_main, sp);
	spool_close(sp);
	sp = open_spool(64 << 20);
	assert_int_equal(stats_of(sp).n_messages, 6);
	assert_int_equal(stats_of(sp).n_damaged, 0);
	spool_close(sp);
	assert_int_equal(umount(dir), 0);
}

/* Somebody else's file takes the room and goes again. Then a removal must not take for itself what the
 * reserve needs. */
static void full_by_others_main(void *arg)
{
	struct spool *sp = arg;
	char path[128];
	put_numbers(sp, 1, 20);
	fill_disk(path, sizeof path);
	uint32_t n = fill_up(sp, 1001, 1000);
	remove_numbers(sp, 1001, n / 2); /* for want of room the reserve is given up for them */
	CHECK(fiber_sleep(dur_ms(50), MONO_NEVER) == 0);
	CHECK(unlink(path) == 0);
	remove_numbers(sp, 1001 + n / 2, n - n / 2);
	wait_healthy(sp);
	put_numbers(sp, 50001, 20);
	CHECK(stats_of(sp).n_messages == 40);
}

static void test_disk_full_by_others(void **state)
{
	mount_small("size=24m");
	struct spool *sp = open_spool(64 << 20);
	worker_run(full_by_others_main, sp);
	spool_close(sp);
	assert_int_equal(umount(dir), 0);
}

/* Segments that were too full to be rewritten are worth it when the disk is full, though nothing dies in them
 * then. */
static uint32_t fill_with_half_dead(struct spool *sp)
{
	char path[128];
	struct body *b = body_alloc(50000);
	for (uint32_t i = 1; i <= 200; i++) {
		struct message *m = model_message(i, 0, b);
		CHECK(spool_put(sp, &m, 1, SOON) == 0);
		message_unref(m);
		struct uuid id = model_id(i);
		if (i % 10 >= 4 && i < 190)
			spool_remove(sp, &id);
	}
	body_unref(b);
	CHECK(fiber_sleep(dur_ms(2500), MONO_NEVER) == 0); /* it has looked for segments by now, in vain */
	CHECK(stats_of(sp).n_bytes_disk > 9 << 20);
	fill_disk(path, sizeof path);
	return fill_up(sp, 1001, 50000);
}

static void full_of_half_dead_main(void *arg) /* 5 segments */
{
	struct spool *sp = arg;
	uint32_t n = fill_with_half_dead(sp);
	wait_healthy(sp);
	CHECK(stats_of(sp).n_messages > n);
}

/* Where there is no room to rewrite any of them the reserve stays for removals. */
static void full_of_large_half_dead_main(void *arg) /* 1 segment and a bit */
{
	struct spool *sp = arg;
	char path[128];
	struct stat st;
	fill_with_half_dead(sp);
	snprintf(path, sizeof path, "%s/reserve", dir);
	for (int i = 0; i < 100; i++) {
		CHECK(stat(path, &st) == 0 && st.st_blocks >= 2048);
		CHECK(fiber_sleep(dur_ms(25), MONO_NEVER) == 0);
	}
	CHECK(spool_health(sp) != NULL);
}

static void test_disk_full_of_half_dead_segments(void **state)
{
	mount_small("size=24m");
	struct spool *sp = open_spool(2 << 20);
	worker_run(full_of_half_dead_main, sp);
	spool_close(sp);
	assert_int_equal(umount(dir), 0);
	mount_small("size=24m");
	sp = open_spool(8 << 20);
	worker_run(full_of_large_half_dead_main, sp);
	spool_close(sp);
	assert_int_equal(umount(dir), 0);
}

#ifdef CIRRUS_FAULTS
static bool is_segment_there(uint64_t seq)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%016llx.journal", dir, (unsigned long long)seq);
	return access(path, F_OK) == 0;
}

/* The last fdatasync failed while the disk was full, and nothing is left that would be removed later: the
 * reserve goes for a new segment. */
static void broken_and_full_main(void *arg)
{
	struct spool *sp = arg;
	char path[128];
	put_numbers(sp, 1, 500);
	fill_disk(path, sizeof path);
	CHECK(fault_arm(STR("spool_sync=*")) == 0);
	remove_numbers(sp, 1, 500);
	for (int i = 0; spool_health(sp) == NULL; i++) {
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
		CHECK(i < 3000);
	}
	CHECK(fault_arm(STR("")) == 0);
	wait_healthy(sp);
	put_numbers(sp, 1001, 20);
	CHECK(stats_of(sp).n_messages == 20);
}

static uint32_t put_until_segment(struct spool *sp, uint32_t first, uint64_t seq)
{
	uint32_t n = 0;
	for (; !is_segment_there(seq); n++)
		put_numbers(sp, first + n, 1);
	return first + n;
}

/* A segment whose tombs have to move on, for which there is no room, does not keep another one that nobody
 * needs. */
static void tombs_without_room_main(void *arg)
{
	struct spool *sp = arg;
	uint32_t second = put_until_segment(sp, 1, 2);
	remove_numbers(sp, 1, second / 4); /* the tombs are in the second segment; the first one lives on */
	uint32_t third = put_until_segment(sp, second, 3), last = put_until_segment(sp, third, 4);
	CHECK(fault_arm(STR("spool_alloc=*")) == 0);
	remove_numbers(sp, second - 1, last - second);
	for (int i = 0; is_segment_there(3); i++) {
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
		CHECK(i < 3000);
	}
	CHECK(is_segment_there(2));
	CHECK(fault_arm(STR("")) == 0);
	wait_healthy(sp);
	for (int i = 0; is_segment_there(2); i++) {
		CHECK(fiber_sleep(dur_ms(20), MONO_NEVER) == 0);
		CHECK(i < 3000);
	}
	CHECK(stats_of(sp).n_messages == second - second / 4 - 1);
}

static void test_broken_segment_on_a_full_disk(void **state)
{
	mount_small("size=24m");
	struct spool *sp = open_spool(256 << 10);
	worker_run(broken_and_full_main, sp);
	spool_close(sp);
	assert_int_equal(umount(dir), 0);
}

static void test_tombs_without_room(void **state)
{
	struct spool *sp = open_spool(64 << 10);
	worker_run(tombs_without_room_main, sp);
	uint64_t n = stats_of(sp).n_messages;
	spool_close(sp);
	sp = open_spool(64 << 10);
	assert_int_equal(stats_of(sp).n_messages, n);
	spool_close(sp);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_full_of_one_segment, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_full_by_others, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_full_of_half_dead_segments, setup, teardown),
#ifdef CIRRUS_FAULTS
		cmocka_unit_test_setup_teardown(test_broken_segment_on_a_full_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tombs_without_room, setup, teardown),
#endif
	};
	cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
