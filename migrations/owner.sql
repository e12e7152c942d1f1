-- Makes the owner of this database: the role that `migration` logs in as. It is no superuser, and may create the roles of the services. What
-- the administrator owns from before becomes the owner's. May be run again; then it also sets the password.
--
-- The settings pydist.owner and pydist.owner_password of the session have the name and the password.
DO
$$
DECLARE
    owner CONSTANT text := current_setting('pydist.owner');
    owned record;
BEGIN
    -- Roles belong to the server: two runs for two of its databases wait for each other.
    LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = owner) THEN
        EXECUTE format('CREATE ROLE %I', owner);
    END IF;
    -- Where the administrator itself is the owner, as before there were roles, it keeps its password.
    IF owner <> current_user THEN
        EXECUTE format('ALTER ROLE %I LOGIN CREATEROLE PASSWORD %L', owner, current_setting('pydist.owner_password'));
    END IF;
    EXECUTE format('ALTER DATABASE %I OWNER TO %I', current_database(), owner);

    -- Not what belongs to an extension. The sequences follow their tables.
    FOR owned IN
        SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind, relation.oid::regclass::text AS name
          FROM pg_class AS relation
         WHERE relnamespace = 'public'::regnamespace
           AND relkind IN ('r', 'v')
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = relation.oid AND deptype = 'e')
         UNION ALL
        SELECT 'ROUTINE', routine.oid::regprocedure::text
          FROM pg_proc AS routine
         WHERE pronamespace = 'public'::regnamespace
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = routine.oid AND deptype = 'e')
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO %I', owned.kind, owned.name, owner);
    END LOOP;
END
$$;
