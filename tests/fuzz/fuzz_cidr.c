/* fuzz_cidr.c - networks and addresses as policies and clients write them. What is taken reads back as the
 * same set. */
#include "base/err.h"
#include "net/addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	str_t text = str_mk((const char *)data, n);
	struct cidr_set set = {0}, again = {0};
	struct net_addr a;
	struct buf out = BUF_INIT, out2 = BUF_INIT;
	if (cidr_set_add(&set, text) == 0) {
		cidr_set_fmt(&set, 0, &out);
		if (cidr_set_add(&again, buf_str(&out)) != 0)
			__builtin_trap();
		cidr_set_fmt(&again, 0, &out2);
		if (!str_eq(buf_str(&out), buf_str(&out2)))
			__builtin_trap();
	}
	if (net_addr_parse(text, &a) == 0 || net_addr_parse_ip(text, 25, &a) == 0)
		(void)cidr_set_has(&set, &a);
	err_clear();
	cidr_set_fini(&set);
	cidr_set_fini(&again);
	buf_fini(&out);
	buf_fini(&out2);
	return 0;
}
