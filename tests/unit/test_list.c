/* test_list.c - intrusive lists: order, unlinking, splicing, removal while iterating. */
#include "ut.h"

#include "base/list.h"

struct item {
	int no;
	struct list node;
};

static void list_expect(struct list *head, const char *digits)
{
	struct buf b = BUF_INIT;
	list_for_each (it, head) {
		buf_add_u64(&b, (uint64_t)list_entry(it, struct item, node)->no);
		assert_ptr_equal(it->next->prev, it);
	}
	assert_buf_is(&b, digits);
	buf_fini(&b);
}

static void list_works(void **state)
{
	struct list a, b;
	struct item item[6];
	list_init(&a);
	list_init(&b);
	for (int i = 0; i < 6; i++) {
		item[i].no = i;
		list_init(&item[i].node);
	}
	assert_true(list_is_empty(&a));
	assert_null(list_pop_front(&a));
	list_push_back(&a, &item[1].node);
	list_push_back(&a, &item[2].node);
	list_push_front(&a, &item[0].node);
	list_expect(&a, "012");
	list_splice_back(&a, &b);
	list_expect(&a, "012");
	list_push_back(&b, &item[3].node);
	list_push_back(&b, &item[4].node);
	list_splice_back(&a, &b);
	list_expect(&a, "01234");
	assert_true(list_is_empty(&b));
	list_splice_back(&b, &a);
	list_expect(&b, "01234");
	list_for_each_safe (it, &b) {
		if (list_entry(it, struct item, node)->no % 2 == 1)
			list_remove(it);
	}
	list_expect(&b, "024");
	list_remove(&item[1].node); /* in no list: harmless */
	assert_ptr_equal(list_pop_front(&b), &item[0].node);
	assert_true(list_is_empty(&item[0].node));
	list_expect(&b, "24");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(list_works)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
