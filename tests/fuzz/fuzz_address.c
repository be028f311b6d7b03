/* fuzz_address.c - lists of addresses: what was read is written, and read back as the same. */
#include "base/err.h"
#include "mime/address_list.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool same(const struct address_mailbox *a, const struct address_mailbox *b)
{
	/* Writing may make a domain ASCII; a name of blanks is none. */
	return str_eq(str_trim(a->name), str_trim(b->name)) && str_eq(a->local, b->local);
}

static void check_back(const struct address_list *l)
{
	struct buf out = BUF_INIT;
	struct header_writer w;
	struct address_list back;
	header_write_begin(&w, &out, STR("To"));
	address_list_write(l, &w);
	header_write_end(&w);
	if (address_list_parse(str_skip(buf_str(&out), 3), &back) != 0 || back.n != l->n)
		abort();
	for (size_t i = 0; i < l->n; i++) {
		const struct address *a = &l->v[i], *b = &back.v[i];
		if (a->is_group != b->is_group || a->n_members != b->n_members || !same(&a->box, &b->box))
			abort();
		for (size_t k = 0; k < a->n_members; k++)
			if (!same(&a->member[k], &b->member[k]))
				abort();
	}
	address_list_fini(&back);
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct address_list l;
	if (address_list_parse(str_mk((const char *)data, n), &l) != 0) {
		if (!err_is(ERR_INVALID))
			abort();
		err_clear();
		return 0;
	}
	check_back(&l);
	address_list_fini(&l);
	if (err_kind() != ERR_NONE)
		abort();
	return 0;
}
