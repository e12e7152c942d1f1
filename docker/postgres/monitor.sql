-- Makes the login of postgres_exporter. It may see statistics of all sessions and databases (pg_read_all_stats), and reads no table of ours.
-- pg_monitor would be more than that: all settings, and functions that scan whole tables. May be run again; then it also sets the password.
--
-- The settings pydist.monitor and pydist.monitor_password of the session have the name and the password.
DO
$$
DECLARE
    monitor CONSTANT text := current_setting('pydist.monitor');
BEGIN
    -- No notice where the role is a member already.
    PERFORM set_config('client_min_messages', 'warning', true);
    -- Roles belong to the server: two runs for two of its databases wait for each other.
    LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = monitor) THEN
        EXECUTE format('CREATE ROLE %I', monitor);
    END IF;
    -- It has few connections, so it cannot take those of the services.
    EXECUTE format('ALTER ROLE %I LOGIN CONNECTION LIMIT 10 PASSWORD %L', monitor, current_setting('pydist.monitor_password'));
    EXECUTE format('GRANT pg_read_all_stats TO %I', monitor);
END
$$;
