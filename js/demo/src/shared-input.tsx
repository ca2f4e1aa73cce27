import { useLayoutEffect, useRef, type InputHTMLAttributes } from "react"

export interface SharedInputProps extends Omit<InputHTMLAttributes<HTMLInputElement>, "value" | "onChange"> {
  text: string
  onText(text: string): void
}

/** A text field that others may write into at the same time: the cursor stays with the words around it. */
export function SharedInput({ text, onText, ...rest }: SharedInputProps) {
  const field = useRef<HTMLInputElement>(null)
  useLayoutEffect(() => {
    const input = field.current!
    if (input.value === text) return
    const { selectionStart, selectionEnd } = input
    const before = input.value
    input.value = text
    if (document.activeElement !== input) return
    input.setSelectionRange(moved(selectionStart, before, text), moved(selectionEnd, before, text))
  }, [text])
  return <input ref={field} type="text" defaultValue={text} onInput={() => onText(field.current!.value)} {...rest} />
}

/** Where a place in one text is in the next: it moves with what is behind it if the difference is before it. */
function moved(at: number | null, before: string, after: string): number {
  const place = at ?? after.length
  let same = 0
  while (same < place && before[same] === after[same]) same++
  return same === place ? place : Math.max(same, place + after.length - before.length)
}
