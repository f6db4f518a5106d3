/**
 * Completion for shells, made of the definitions of the commands themselves: what commands and options there are, and
 * names of containers, machines, networks and volumes where a command takes one.
 */
import type { Command, Option } from 'commander';
import { CliError } from './errors.ts';

/** What lists the names of things, by what commands call their arguments. Shells split these at spaces and nothing else. */
const LISTS: Readonly<Record<string, string>> = {
  container: 'ps -a --format {{.Names}}',
  machine: 'machine ls -q',
  network: 'network ls --format {{.Name}}',
  volume: 'volume ls -q',
};

export const SHELLS = ['bash', 'zsh', 'fish'] as const;

interface Entry {
  /** The words before the cursor that lead here, options left out: `machine ls`. */
  readonly path: string;
  readonly description: string;
  readonly commands: readonly Entry[];
  readonly options: readonly {
    readonly names: readonly string[];
    readonly value: boolean;
    readonly description: string;
  }[];
  /** The command that lists what its arguments can be; empty: anything. */
  readonly names: string;
}

/** Throws `CliError` for a shell that there is none for. */
export function completionScript(program: Command, shell: string): string {
  const root = entryOf(program, '');
  switch (shell) {
    case 'bash':
      return bash(program.name(), root);
    case 'zsh':
      return zsh(program.name(), root);
    case 'fish':
      return fish(program.name(), root);
    default:
      throw new CliError(
        `there is no completion for ${JSON.stringify(shell)}; there is one for ${SHELLS.join(', ')}`,
        1,
      );
  }
}

function entryOf(command: Command, path: string): Entry {
  const [first] = command.registeredArguments;
  return {
    path,
    description: command.description(),
    commands: command.commands.map((child) =>
      entryOf(child, path === '' ? child.name() : `${path} ${child.name()}`),
    ),
    options: command.options.filter(({ hidden }) => !hidden).map(optionOf),
    names: LISTS[first?.name() ?? ''] ?? '',
  };
}

function optionOf(option: Option): Entry['options'][number] {
  return {
    names: [option.short, option.long].filter((name) => name !== undefined && name !== null),
    value: option.required,
    description: option.description,
  };
}

function all(entry: Entry): Entry[] {
  return [entry, ...entry.commands.flatMap(all)];
}

function lastWord(path: string): string {
  return path.split(' ').at(-1) ?? '';
}

/** In single quotes, for any of the shells. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** For fish, where braces mean something outside of quotes. */
function quoteWords(words: string): string {
  return words
    .split(' ')
    .map((word) => `"${word}"`)
    .join(' ');
}

function bash(name: string, root: Entry): string {
  const entries = all(root);
  const known = entries.slice(1).map(({ path }) => quote(path));
  const cases = entries.map(({ path, commands, options, names: list }) => {
    const words = [
      ...commands.map((child) => lastWord(child.path)),
      ...options.flatMap(({ names }) => names),
    ];
    const values = options.filter(({ value }) => value).flatMap(({ names }) => names);
    return `    ${quote(path)}) words=${quote(words.join(' '))} values=${quote(` ${values.join(' ')} `)} names=${quote(list)} ;;`;
  });
  return `# bash completion for ${name}: source <(${name} completion bash)
_${name}() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} path= word at words values names
  for ((at = 1; at < COMP_CWORD; at++)); do
    word="\${path:+$path }\${COMP_WORDS[at]}"
    case $word in
      ${known.join(' | ')}) path=$word ;;
    esac
  done
  case $path in
${cases.join('\n')}
  esac
  COMPREPLY=()
  # After an option that takes a value there may be anything.
  if [[ -n $previous && $values == *" $previous "* ]]; then
    return
  fi
  if [[ -n $names && $current != -* ]]; then
    words="$words $(${name} $names 2>/dev/null)"
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o default -F _${name} ${name}
`;
}

function zsh(name: string, root: Entry): string {
  const entries = all(root);
  const known = entries.slice(1).map(({ path }) => quote(path));
  const described = (word: string, text: string): string => quote(`${word.replaceAll(':', '\\:')}:${text}`);
  const cases = entries.map(({ path, commands, options, names: list }) => {
    const words = [
      ...commands.map((child) => described(lastWord(child.path), child.description)),
      ...options.flatMap(({ names, description }) => names.map((option) => described(option, description))),
    ];
    const values = options.filter(({ value }) => value).flatMap(({ names }) => names);
    return `    ${quote(path)}) offers=(${words.join(' ')}) values=${quote(` ${values.join(' ')} `)} names=${quote(list)} ;;`;
  });
  return `#compdef ${name}
# zsh completion for ${name}: source <(${name} completion zsh)
_${name}() {
  local path_so_far='' word values names
  local -a offers
  integer at
  for ((at = 2; at < CURRENT; at++)); do
    word="\${path_so_far:+$path_so_far }\${words[at]}"
    case $word in
      ${known.join(' | ')}) path_so_far=$word ;;
    esac
  done
  case $path_so_far in
${cases.join('\n')}
  esac
  if [[ $values == *" \${words[CURRENT - 1]} "* ]]; then
    _files
    return
  fi
  if [[ -n $names ]]; then
    offers+=(\${(f)"$(${name} \${=names} 2>/dev/null)"})
  fi
  _describe ${name} offers
}
if [[ $funcstack[1] == _${name} ]]; then
  _${name} "$@"
else
  compdef _${name} ${name}
fi
`;
}

function fish(name: string, root: Entry): string {
  const entries = all(root);
  const lines = entries.flatMap(({ path, commands, options, names: list }) => {
    const here = `-n ${quote(`__${name}_at ${quote(path).replaceAll("'", '"')}`)}`;
    return [
      ...commands.map(
        (child) => `complete -c ${name} -f ${here} -a ${lastWord(child.path)} -d ${quote(child.description)}`,
      ),
      ...options.map(({ names, value, description }) => {
        const flags = names.map((option) =>
          option.startsWith('--') ? `-l ${option.slice(2)}` : `-s ${option.slice(1)}`,
        );
        return `complete -c ${name} ${here} ${flags.join(' ')}${value ? ' -r' : ''} -d ${quote(description)}`;
      }),
      ...(list === ''
        ? []
        : [`complete -c ${name} -f ${here} -a ${quote(`(${name} ${quoteWords(list)} 2>/dev/null)`)}`]),
    ];
  });
  const known = entries.slice(1).map(({ path }) => quote(path));
  return `# fish completion for ${name}: ${name} completion fish | source
function __${name}_at
  set -l path ''
  for word in (commandline -opc)[2..]
    set -l longer (string trim -- "$path $word")
    contains -- $longer ${known.join(' ')}; and set path $longer
  end
  test "$path" = "$argv[1]"
end
${lines.join('\n')}
`;
}
