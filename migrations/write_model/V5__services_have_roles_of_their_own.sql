-- Services log in as roles of their own, which may not write orders or the total by themselves. So the function that does runs with the
-- privileges of its owner, whatever schemas the caller has, and only those call it to whom `migration` grants it.
ALTER FUNCTION accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[])
    SECURITY DEFINER
    SET search_path = public, pg_temp;
REVOKE ALL ON FUNCTION accept_orders(uuid[], bigint[], text[], numeric[], uuid[], numeric[], numeric[], text[], text[]) FROM PUBLIC;


-- Who takes a lock with FOR UPDATE needs the privilege to update.
CREATE FUNCTION lock_running_total() RETURNS void
    LANGUAGE sql
    SECURITY DEFINER
    SET search_path = public, pg_temp AS
$$
SELECT FROM buy_order_running_total FOR UPDATE
$$;
REVOKE ALL ON FUNCTION lock_running_total() FROM PUBLIC;

COMMENT ON FUNCTION lock_running_total() IS
    'Waits for the writers, and keeps new ones waiting until the end of the transaction';
