/**
 * Completion for shells, made of the definitions of the commands themselves: what commands and options there are, and
 * names of containers, images, machines, networks and volumes where a command takes one: each of its arguments has its own.
 */
import type { Command, Option } from 'commander';
import { CliError } from './errors.ts';

const CONTAINERS = 'ps -a --format {{.Names}}';
const IMAGES = 'images --format {{.Repository}}:{{.Tag}}';
const NETWORKS = 'network ls --format {{.Name}}';
const VOLUMES = 'volume ls -q';
/**
 * What lists the names of things, by what commands call their arguments; `|` is between several. Shells split these at
 * spaces and nothing else.
 */
const LISTS: Readonly<Record<string, string>> = {
  container: CONTAINERS,
  image: IMAGES,
  machine: 'machine ls -q',
  network: NETWORKS,
  volume: VOLUMES,
  object: [CONTAINERS, IMAGES, VOLUMES, NETWORKS].join('|'),
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
  /** For each of its arguments the commands that list what it can be; empty: anything. */
  readonly lists: readonly string[];
  /** The last argument may be there many times. */
  readonly goesOn: boolean;
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
  const names = command.registeredArguments.map((argument) => LISTS[argument.name()] ?? '');
  return {
    path,
    description: command.description(),
    commands: command.commands.map((child) =>
      entryOf(child, path === '' ? child.name() : `${path} ${child.name()}`),
    ),
    options: command.options.filter(({ hidden }) => !hidden).map(optionOf),
    lists: names.slice(0, names.findLastIndex((name) => name !== '') + 1),
    goesOn: names.at(-1) !== '' && command.registeredArguments.at(-1)?.variadic === true,
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

function valueOptions({ options }: Entry): string {
  return options
    .filter(({ value }) => value)
    .flatMap(({ names }) => names)
    .join(' ');
}

function bash(name: string, root: Entry): string {
  const entries = all(root);
  const known = entries.slice(1).map(({ path }) => quote(path));
  const cases = entries.map((entry) => {
    const { path, commands, options, lists, goesOn } = entry;
    const words = [
      ...commands.map((child) => lastWord(child.path)),
      ...options.flatMap(({ names }) => names),
    ];
    return `    ${quote(path)}) words=${quote(words.join(' '))} values=${quote(` ${valueOptions(entry)} `)} lists=(${lists.map(quote).join(' ')}) more=${goesOn ? 1 : 0} ;;`;
  });
  return `# bash completion for ${name}: source <(${name} completion bash)
_${name}() {
  local current previous path= word words values names list more
  local -i at begin=1 position=0
  local -a line=() lists=()
  # Bash takes a colon for the end of a word; in names of images it is none.
  for ((at = 0; at <= COMP_CWORD; at++)); do
    word=\${COMP_WORDS[at]}
    if ((at > 1)) && [[ $word == :* || \${COMP_WORDS[at - 1]} == : ]]; then
      line[\${#line[@]}-1]+=$word
    else
      line+=("$word")
    fi
  done
  current=\${line[\${#line[@]}-1]} previous=\${line[\${#line[@]}-2]}
  for ((at = 1; at < \${#line[@]} - 1; at++)); do
    word="\${path:+$path }\${line[at]}"
    case $word in
      ${known.join(' | ')}) path=$word begin=at+1 ;;
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
  for ((at = begin; at < \${#line[@]} - 1; at++)); do
    case \${line[at]} in
      -*) if [[ $values == *" \${line[at]} "* ]]; then at+=1; fi ;;
      *) position+=1 ;;
    esac
  done
  if ((more && position >= \${#lists[@]})); then
    position=\${#lists[@]}-1
  fi
  names=\${lists[position]}
  if [[ -n $names && $current != -* ]]; then
    while [[ -n $names ]]; do
      list=\${names%%|*}
      words="$words $(${name} $list 2>/dev/null)"
      names=\${names:\${#list}+1}
    done
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
    COMPREPLY=("\${COMPREPLY[@]#"\${current%:*}:"}")
  fi
}
complete -o default -F _${name} ${name}
`;
}

function zsh(name: string, root: Entry): string {
  const entries = all(root);
  const known = entries.slice(1).map(({ path }) => quote(path));
  const described = (word: string, text: string): string => quote(`${word.replaceAll(':', '\\:')}:${text}`);
  const cases = entries.map((entry) => {
    const { path, commands, options, lists, goesOn } = entry;
    const words = [
      ...commands.map((child) => described(lastWord(child.path), child.description)),
      ...options.flatMap(({ names, description }) => names.map((option) => described(option, description))),
    ];
    return `    ${quote(path)}) offers=(${words.join(' ')}) values=${quote(` ${valueOptions(entry)} `)} lists=(${lists.map(quote).join(' ')}) more=${goesOn ? 1 : 0} ;;`;
  });
  return `#compdef ${name}
# zsh completion for ${name}: source <(${name} completion zsh)
_${name}() {
  local path_so_far='' word values list
  local -a offers lists found
  integer at begin=2 position=1 more
  for ((at = 2; at < CURRENT; at++)); do
    word="\${path_so_far:+$path_so_far }\${words[at]}"
    case $word in
      ${known.join(' | ')}) path_so_far=$word; begin=at+1 ;;
    esac
  done
  case $path_so_far in
${cases.join('\n')}
  esac
  if [[ $values == *" \${words[CURRENT - 1]} "* ]]; then
    _files
    return
  fi
  for ((at = begin; at < CURRENT; at++)); do
    case \${words[at]} in
      -*) [[ $values == *" \${words[at]} "* ]] && at+=1 ;;
      *) position+=1 ;;
    esac
  done
  if ((more && position > \${#lists})); then
    position=\${#lists}
  fi
  for list in \${(s:|:)lists[position]}; do
    found=(\${(f)"$(${name} \${=list} 2>/dev/null)"})
    # What follows a colon would be a description.
    offers+=(\${found//:/\\\\:})
  done
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
  const inDouble = (path: string): string => quote(path).replaceAll("'", '"');
  const lines = entries.flatMap((entry) => {
    const { path, commands, options, lists, goesOn } = entry;
    const here = `-n ${quote(`__${name}_at ${inDouble(path)}`)}`;
    const places = lists.flatMap((list, index) => {
      const last = goesOn && index === lists.length - 1;
      const there = `-n ${quote(`__${name}_argument ${inDouble(path)} ${index} ${last ? 'on' : 'once'} ${inDouble(valueOptions(entry))}`)}`;
      return list
        .split('|')
        .filter((command) => command !== '')
        .map(
          (command) =>
            `complete -c ${name} -f ${there} -a ${quote(`(${name} ${quoteWords(command)} 2>/dev/null)`)}`,
        );
    });
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
      ...places,
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
# Whether the cursor is at the command's argument of this number, or, when it goes on, at a later one.
function __${name}_argument
  __${name}_at "$argv[1]"; or return 1
  set -l values (string split ' ' -- "$argv[4]")
  set -l path (string split ' ' -- "$argv[1]")
  set -l number 0
  set -l skip no
  for word in (commandline -opc)[2..]
    if test $skip = yes
      set skip no
    else if test (count $path) -gt 0; and test "$word" = "$path[1]"
      set -e path[1]
    else if string match -q -- '-*' $word
      contains -- $word $values; and set skip yes
    else
      set number (math $number + 1)
    end
  end
  test $number -eq $argv[2]; or test $argv[3] = on -a $number -gt $argv[2]
end
${lines.join('\n')}
`;
}
