/* fuzz_report.c - reports of both kinds: read, or refused
 * with a reason; and what the records of bounces say. */
#include "base/err.h"
#include "smtp/in_impl.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	str_t bytes = str_mk((const char *)data, n);
	struct dsn_report dsn;
	struct arf_report arf;
	int rc = dsn_report_parse(bytes, &dsn);
	if (rc == 1) {
		if (dsn.n_recipients == 0)
			abort();
		for (size_t i = 0; i < dsn.n_recipients; i++) {
			struct record r = {0};
			if (in_report_bounce(&dsn, &dsn.recipient[i], &r) &&
			    (r.response.code < 400 || r.response.code > 599 || r.response.content.n > 4096 ||
			     r.peer_name.n > 255))
				abort();
		}
		json_decref(dsn_report_json(&dsn));
		dsn_report_fini(&dsn);
	}
	if ((rc == -1) != err_is(ERR_INVALID))
		abort();
	err_clear();
	rc = arf_report_parse(bytes, &arf);
	if (rc == 1) {
		json_decref(arf_report_json(&arf, n % 2 == 0));
		arf_report_fini(&arf);
	}
	if ((rc == -1) != err_is(ERR_INVALID))
		abort();
	err_clear();
	return 0;
}
