/** Container IDs, and names for those that were given none: an adjective and a person who moved computing along. */
import { randomBytes, randomInt } from 'node:crypto';
import { EngineError } from '../errors.ts';
import { CONTAINER_NAME_LENGTH_MAX } from '../limits.ts';

const ADJECTIVES =
  'able agile amber apt arctic bold brave brisk calm candid clear clever cosmic crisp daring deft eager earnest fair fearless fleet fond frank gentle glad golden grand happy hardy honest humble jolly keen kind lively lucid lucky mellow merry mighty modest neat nimble noble patient placid plucky polite proud quick quiet rapid ready serene sharp silent sincere smart steady stoic sturdy subtle sunny swift tidy tranquil upbeat vivid warm wise witty zesty'.split(
    ' ',
  );
const SURNAMES =
  'allen antonelli babbage backus bartik boole booth borg cerf church clarke codd conway cray curry dijkstra easley engelbart euler floyd franklin galois gauss goldberg goldwasser hamilton hamming hoare hopper jacquard johnson joy kahan kay keller kernighan kilburn kleene knuth lamarr lamport lampson leibniz liskov lovelace mauchly mcbride mccarthy meitner milner minsky moore napier naur noether pascal perlman postel ritchie sammet shannon shaw simon stallman stonebraker sutherland tarjan thompson torvalds turing ulam villani wiener wilkes wilkinson wirth zuse'.split(
    ' ',
  );

export function newContainerId(): string {
  return randomBytes(32).toString('hex');
}

/** A free name; past a few attempts a number is appended. */
export function generateName(taken: (name: string) => boolean): string {
  for (let attempt = 0; ; attempt += 1) {
    const base = `${ADJECTIVES[randomInt(ADJECTIVES.length)]}_${SURNAMES[randomInt(SURNAMES.length)]}`;
    const name = attempt < 6 ? base : `${base}${randomInt(10 ** Math.min(attempt - 5, 9))}`;
    if (!taken(name)) return name;
  }
}

/** Throws `ERR_ARCBOX_INVALID_ARGUMENT` unless `name` is one that docker takes, too. */
export function checkName(name: string): void {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(name) || name.length > CONTAINER_NAME_LENGTH_MAX) {
    throw new EngineError(
      'ERR_ARCBOX_INVALID_ARGUMENT',
      `invalid container name ${JSON.stringify(name)}: it has 2 to ${CONTAINER_NAME_LENGTH_MAX} letters, digits, _ . or -, and begins with a letter or digit`,
    );
  }
}
