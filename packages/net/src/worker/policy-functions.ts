/**
 * Policies that are functions, on the daemon's side. The network's thread asks for every flow, keeps time, counts and
 * tells of denials; here the function is called and its answer made into what can cross between threads. Every question
 * is answered, in time or with why not: the thread remembers it until then.
 */
import { reasonOf } from '../errors.ts';
import { DECISION_MS } from '../policy/limits.ts';
import {
  type AskedFlow,
  type FlowFunction,
  type FunctionAnswer,
  keyOf,
  type PolicySubject,
} from './protocol.ts';

export class PolicyFunctions {
  readonly #functions = new Map<string, FlowFunction>();

  /** Answers questions from now on; `undefined`: there will be none. */
  set(subject: PolicySubject, policy: FlowFunction | undefined): void {
    if (policy === undefined) this.#functions.delete(keyOf(subject));
    else this.#functions.set(keyOf(subject), policy);
  }

  /** Never rejects. */
  async answer(subject: PolicySubject, flow: AskedFlow): Promise<FunctionAnswer> {
    const policy = this.#functions.get(keyOf(subject));
    // Taken away while its question was on the way.
    if (policy === undefined) return { failure: 'it is not there any more' };
    let timer: NodeJS.Timeout | undefined;
    try {
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no answer in ${DECISION_MS} ms`)), DECISION_MS);
        timer.unref();
      });
      return { answer: plain(await Promise.race([policy(flow), late])) };
    } catch (error) {
      return { failure: reasonOf(error) };
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The words and numbers of an answer. Whether they mean something is judged where the others are. */
function plain(told: unknown): FunctionAnswer['answer'] {
  if (typeof told === 'string') return told;
  if (typeof told !== 'object' || told === null) return undefined;
  const { action, address, port } = told as { action?: unknown; address?: unknown; port?: unknown };
  return {
    ...(typeof action === 'string' ? { action } : {}),
    ...(typeof address === 'string' ? { address } : {}),
    ...(typeof port === 'number' ? { port } : {}),
  };
}
