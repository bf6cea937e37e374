# `make` alone prints this file's help. Everything that needs an environment makes it first.

SHELL := /bin/sh
BIN := .venv/bin
ARGS ?=
# A file's tests stay in one process, and the longest files are begun first (docs/decisions/0021).
TOGETHER := --numprocesses auto --dist loadfile --no-loadscope-reorder
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run tour test test-compose check lint types boundaries bench chaos clean

##@ Use it
run: setup  ## start the whole platform; http://127.0.0.1:8000 (CARILLON_PORT), data in .carillon/ (CARILLON_HOME)
	@exec $(BIN)/carillon up

tour: setup  ## watch one event go through every service of the platform that `make run` started
	@exec $(BIN)/carillon tour

##@ Work on it
setup:  ## make or refresh .venv; quick when nothing changed
	@sh deploy/bootstrap

test: setup  ## run all tests, several files at once (a part, one after the other: make test ARGS="services/backup -k restore")
	@exec $(BIN)/pytest $(or $(ARGS),$(TOGETHER))

test-compose: setup  ## try the images and docker-compose.yml for real; needs docker, takes minutes
	@exec $(BIN)/pytest -x -m compose tests/compose $(ARGS)

check: lint types boundaries test  ## everything that has to hold before a change is taken

lint: setup  ## style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup  ## static types
	@$(BIN)/mypy

boundaries: setup  ## who may import whom
	@$(BIN)/lint-imports

bench: setup  ## measure against the figures in bench/README.md (up to an hour; a part: make bench ARGS="--only submit")
	@exec $(BIN)/python -m bench $(or $(ARGS),--only all)

chaos: setup  ## break everything under load and count what is lost (6 minutes; all of it: ARGS="--profile full")
	@exec $(BIN)/python -m chaos $(ARGS)

clean:  ## remove environments and caches; the data in .carillon/ stays
	@rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## print this
	@awk 'BEGIN { FS = ":.*  ## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*  ## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
