/*
 * insula.enter() in C, for servers whose operator lets Insula load a module: the same checks in the same order as the function in
 * sql/020_bind_setting.sql, which stays in charge of whatever is not usual, without the cost of setting up an expression in every
 * transaction.
 *
 * Always: this file verifies no grant. It remembers, in this backend's own memory, which grants insula.enter_anew() has verified
 * here, and lets the same grant in again while it is good; all else goes to insula.enter_anew(). It reads no relation, and holds
 * no key.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_MODULE_MAGIC;

#define MAC_BYTES 32
#define PLACES 256				/* a power of two */

/* A grant that was verified for this backend. All zero: none (no tenant has the number 0). */
typedef struct Grant
{
	int64		no;
	int64		epoch;
	int64		expires;		/* seconds since 1970 */
	int64		fence;
	int32		kid;
	uint8		mac[MAC_BYTES];
} Grant;

static Grant seen[PLACES];

/* The fence's sequence and the owner of it, which is the kit's owner. Both live as long as the database does. */
static Oid	fence_sequence = InvalidOid;
static Oid	kit_owner = InvalidOid;

PG_FUNCTION_INFO_V1(insula_enter);

static void
find_fence(void)
{
	Oid			schema = get_namespace_oid("insula", false);
	Oid			sequence = get_relname_relid("fence", schema);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(sequence));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "insula: this database has no fence");
	kit_owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	fence_sequence = sequence;
}

static bool
same_grant(const Grant *a, const Grant *b)
{
	uint8		difference = 0;

	/* All bytes, whatever the first say: the time tells nothing about the MAC. */
	for (int i = 0; i < MAC_BYTES; i++)
		difference |= a->mac[i] ^ b->mac[i];
	return difference == 0 && a->no == b->no && a->epoch == b->epoch && a->expires == b->expires && a->fence == b->fence &&
		a->kid == b->kid;
}

/* Whether a grant that stands in the memory is good now; if so, its transaction is bound. Runs as the kit's owner. */
static bool
enter_again(const Grant *grant)
{
	char		no[24];

	if (GetCurrentTimestamp() > time_t_to_timestamptz((pg_time_t) grant->expires))
		return false;
	if (backtrace_functions != NULL && backtrace_functions[0] != '\0')
		return false;
	/* The lock first: while it is held, no change to the tenant can raise the fence. */
	DirectFunctionCall1(pg_advisory_xact_lock_shared_int8, Int64GetDatum(grant->no));
	if (DatumGetInt64(DirectFunctionCall1(pg_sequence_last_value, ObjectIdGetDatum(fence_sequence))) != grant->fence)
		return false;
	pg_lltoa(grant->no, no);
	(void) set_config_option("backtrace_functions", no, PGC_SUSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	return true;
}

/* Runs as the kit's owner. Raises what enter_anew() raises. */
static void
enter_anew(FunctionCallInfo fcinfo)
{
	Oid			types[6] = {INT8OID, INT8OID, INT8OID, INT8OID, INT4OID, BYTEAOID};
	Datum		values[6];

	for (int i = 0; i < 6; i++)
		values[i] = PG_GETARG_DATUM(i);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "insula: SPI_connect failed");
	if (SPI_execute_with_args("SELECT insula.enter_anew($1, $2, $3, $4, $5, $6)", 6, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "insula: enter_anew failed");
	SPI_finish();
}

Datum
insula_enter(PG_FUNCTION_ARGS)
{
	bytea	   *mac = PG_GETARG_BYTEA_PP(5);
	bool		whole = VARSIZE_ANY_EXHDR(mac) == MAC_BYTES;
	Grant		grant = {0};
	Grant	   *place;
	Oid			user;
	int			context;

	grant.no = PG_GETARG_INT64(0);
	grant.epoch = PG_GETARG_INT64(1);
	grant.expires = PG_GETARG_INT64(2);
	grant.fence = PG_GETARG_INT64(3);
	grant.kid = PG_GETARG_INT32(4);
	if (whole)
		memcpy(grant.mac, VARDATA_ANY(mac), MAC_BYTES);
	place = &seen[grant.mac[0] & (PLACES - 1)];

	if (fence_sequence == InvalidOid)
		find_fence();
	/* On an error the transaction's abort puts the user back, as it does for every function that runs as its owner. */
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(kit_owner, context | SECURITY_LOCAL_USERID_CHANGE);
	if (!(whole && grant.no != 0 && same_grant(place, &grant) && enter_again(place)))
	{
		enter_anew(fcinfo);
		if (whole)
			*place = grant;
	}
	SetUserIdAndSecContext(user, context);
	PG_RETURN_VOID();
}
