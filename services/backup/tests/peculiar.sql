create schema "Odd ""schema""";
create type mood as enum ('sad', 'ok');
create table "Odd ""schema"""."two
\! touch /tmp/carillon" ("a:b" text, "%s{x}" mood, j jsonb, f float8, m money, b bytea, i interval,
    t timestamptz, p point, r int4range, x bit varying, u uuid, a numeric[]);
insert into "Odd ""schema"""."two
\! touch /tmp/carillon" values
    (E'\\ \n "', 'ok', '{"a": 1.10}', 1e-300, 12.34, '\x00ff', '1 mon -3 days', '2026-03-29 02:30+02', '(0.1,2)',
     '[1,5)', b'101', '00000000-0000-0000-0000-000000000001', '{NaN,1.0,null}'), (null, null, null, 'NaN', null, null,
     null, 'infinity', null, 'empty', null, null, '{}');
create table bare ();
insert into bare default values;
insert into bare default values;
create table parted (k int, v text) partition by list (k);
create table parted_1 (v text, k int);
alter table parted attach partition parted_1 for values in (1);
insert into parted values (1, 'one');
create table parent (id int, dropped int, name text);
alter table parent drop column dropped;
create table child (own text) inherits (parent);
alter table parent add column later int default 7;
insert into child values (1, 'n', 'own');
create unlogged table fleeting as select 1 as one;
create view seen as select * from parent;
create materialized view counted as select count(*) from child;
create sequence downwards increment -3 maxvalue 100 start 100;
select nextval('downwards');
create sequence round cycle;
select lo_from_bytea(0, '\xdeadbeef');
create function twice(int) returns int language sql immutable as 'select $1 * 2';
create index on parent (twice(id));
